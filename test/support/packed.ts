import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../", import.meta.url));

/** A consumer's project with the package as it is packed: `test/runtimes`, compiled by its own `tsc`. */
export interface PackedProject extends Disposable {
  readonly folder: string;
}

/** Its other packages are the checkout's, within which it is. */
export function packedProject(): PackedProject {
  mkdirSync(join(root, ".cache/consumer"), { recursive: true });
  const folder = mkdtempSync(join(root, ".cache/consumer/"));
  const packed = run("npm", ["pack", "--ignore-scripts", "--pack-destination", folder], root)
    .trim().split("\n").at(-1);
  const installed = join(folder, "node_modules/@bemi/core");
  mkdirSync(installed, { recursive: true });
  run("tar", ["-xzf", packed ?? "", "-C", installed, "--strip-components=1"], folder);
  cpSync(join(root, "test/runtimes"), join(folder, "runtimes"), { recursive: true });
  mkdirSync(join(folder, "support"));
  cpSync(join(root, "test/support/requests.ts"), join(folder, "support/requests.ts"));
  writeFileSync(join(folder, "package.json"), JSON.stringify({ private: true, type: "module" }));
  const compilerOptions = {
    target: "ES2022",
    lib: ["ES2023", "DOM", "DOM.Iterable", "ESNext.Disposable"],
    module: "NodeNext",
    types: ["node", "bun-types"],
    strict: true,
    exactOptionalPropertyTypes: true,
    rewriteRelativeImportExtensions: true,
    // Not all of the drivers' own declarations hold.
    skipLibCheck: true,
  };
  writeFileSync(
    join(folder, "tsconfig.json"),
    JSON.stringify({ compilerOptions, include: ["runtimes"], exclude: ["runtimes/bun-sql.ts"] }),
  );
  run("npx", ["tsc", "-p", folder], root);
  return { folder, [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }) };
}

function run(command: string, args: readonly string[], cwd: string): string {
  const { status, stdout, stderr } = spawnSync(command, args, { cwd, encoding: "utf8" });
  if (status !== 0) throw new Error(`${command} ${args.join(" ")} failed\n${stdout}${stderr}`);
  return stdout;
}
