import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { onEachServer } from "./support/databases.ts";
import { PROCESS_RUNTIMES, runToEnd } from "./support/runtimes.ts";
import { TODOS } from "./support/todos.ts";
// @ts-expect-error plain JavaScript, as it runs before anything is built
import { tool } from "./tools/install.mjs";

const root = fileURLToPath(new URL("../", import.meta.url));
const find = tool as (name: string) => string;

const { name, exports } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
  name: string;
  exports: Readonly<Record<string, unknown>>;
};
const specifiers = Object.keys(exports).filter((key) => key !== "./cli" && key !== "./package.json")
  .map((key) => name + key.slice(1));

function run(command: string, args: readonly string[], cwd: string): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd,
    encoding: "utf8",
    timeout: 150_000,
  });
  if (status !== 0) {
    throw new Error(`${command} ${args.join(" ")} failed: ${error ?? ""}\n${stdout}${stderr}`);
  }
  return stdout;
}

// Outside the checkout, whose packages would be found otherwise: there is what the package itself asks for, and no peer.
describe.each(["npm", "bun"])("the packed package, installed by %s", (manager) => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "bemi-installed-"));
    const packed = run("npm", ["pack", "--ignore-scripts", "--pack-destination", folder], root).trim().split(
      "\n",
    ).at(-1);
    writeFileSync(join(folder, "package.json"), JSON.stringify({ private: true, type: "module" }));
    if (manager === "bun") run(find("bun"), ["add", `./${packed}`], folder);
    else {
      const options = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline"];
      run("npm", ["install", ...options, `./${packed}`], folder);
    }
  }, 160_000);
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test.for(PROCESS_RUNTIMES)(
    "loads under $name, each subpath, with nothing besides",
    ({ command }, { skip }) => {
      const found = command();
      if (!found) return skip();
      const text = `${
        specifiers.map((specifier) => `await import(${JSON.stringify(specifier)});`).join("\n")
      }\nconsole.log("loaded");`;
      writeFileSync(join(folder, "load.mjs"), text);
      expect(runToEnd({ command: found, args: ["load.mjs"], cwd: folder })).toBe("loaded\n");
    },
  );

  test("has types that hold without anybody else's, but for Hono's middleware", () => {
    const text = specifiers.filter((specifier) => !specifier.endsWith("/hono"))
      .map((specifier, n) => `export * as module${n} from ${JSON.stringify(specifier)};\n`).join("");
    writeFileSync(join(folder, "types.ts"), text);
    const compilerOptions = {
      target: "ES2022",
      lib: ["ES2022", "DOM", "ESNext.Disposable"],
      module: "NodeNext",
      types: [],
      strict: true,
      exactOptionalPropertyTypes: true,
      skipLibCheck: false,
      noEmit: true,
    };
    writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["types.ts"] }));
    const { stdout } = spawnSync("npx", ["tsc", "-p", folder], { cwd: root, encoding: "utf8" });
    expect(stdout).toBe("");
  });

  test("has a demo that names what it runs on", () => {
    const { status, stderr } = spawnSync("node_modules/.bin/bemi", ["demo"], {
      cwd: folder,
      encoding: "utf8",
    });
    expect([status, stderr]).toEqual([1, expect.stringMatching(/^bemi: The demo needs the package hono\n/)]);
    expect(stderr).toContain("npm install hono @electric-sql/pglite");
  });

  onEachServer("on a server", (open) => {
    test("has the README's commands", async () => {
      const readme = readFileSync(join(root, "README.md"), "utf8");
      const [, block = ""] = /^```sh\n([^`]*^bunx [^`]*)^```/m.exec(readme) ?? [];
      const lines = block.split("\n").filter(Boolean);
      expect(lines.map((line) => line.split(" ")[0])).toEqual(["npx", "bunx", "deno"]);
      await using database = await open();
      await database.port.execute(TODOS);
      const env = {
        DATABASE_URL: database.url,
        PATH: [dirname(find("deno")), process.env.PATH].join(delimiter),
      };
      const shell = (line: string): string =>
        runToEnd({ command: ["bash"], args: ["-c", line], env, cwd: folder });
      shell("npx bemi init --all --capture wal");
      await database.port.execute("insert into todos (task) values ('Sleep')");
      const [status, polled, history] = lines.map(shell);
      expect(status).toMatch(/^installation/);
      expect(polled).toBe("");
      expect(history).toMatch(/CREATE todos 1\n[^]*\+ task: "Sleep"/);
    });
  });
});
