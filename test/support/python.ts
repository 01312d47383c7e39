import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Runs a script with packages from PyPI, kept outside the checkout between runs. */
export interface Python {
  /** What the script prints, as JSON. @throws where it fails, with what it said */
  run(script: string, args: readonly string[], env?: Readonly<Record<string, string>>): unknown;
}

/** `undefined`, and a warning that says why, where there is no Python 3.10 or no way to the packages. */
export function python(name: string, packages: readonly string[]): Python | undefined {
  const folder = join(tmpdir(), `bemi-test-python-${name}-${packages.join("-").replace(/[^\w.]+/g, "-")}`);
  const complete = join(folder, ".complete");
  if (!existsSync(complete)) {
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true });
    const pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", folder];
    const { status, stderr, error } = spawnSync("python3", [...pip, ...packages], { encoding: "utf8" });
    if (status !== 0) {
      console.warn(
        `The tests with ${name} are skipped: python3 -m pip install ${packages.join(" ")} failed: ${
          error?.message ?? stderr.trim().split("\n").at(-1)
        } (Debian's packages: python3, python3-pip)`,
      );
      return undefined;
    }
    writeFileSync(complete, "");
  }
  return {
    run: (script, args, env = {}) => {
      const { status, stdout, stderr } = spawnSync("python3", [script, ...args], {
        encoding: "utf8",
        env: {
          PATH: process.env.PATH ?? "",
          HOME: process.env.HOME ?? "",
          PYTHONPATH: folder,
          PYTHONDONTWRITEBYTECODE: "1",
          ...env,
        },
      });
      if (status !== 0) throw new Error(`python3 ${script} ${args.join(" ")} failed:\n${stdout}${stderr}`);
      return stdout.trim() === "" ? undefined : JSON.parse(stdout) as unknown;
    },
  };
}
