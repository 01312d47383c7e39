import { spawnSync } from "node:child_process";
import { cachedFolder } from "./cached-folder.ts";

/** Runs scripts with packages from PyPI. */
export interface Python {
  /** What the script prints, as JSON. @throws where it fails, with what it said */
  run(script: string, args: readonly string[], env?: Readonly<Record<string, string>>): unknown;
}

export function python(name: string, packages: readonly string[]): Python | undefined {
  const folder = cachedFolder(`python-${name}`, packages, (folder) => {
    const pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", folder];
    const { status, stderr, error } = spawnSync("python3", [...pip, ...packages], { encoding: "utf8" });
    return status === 0 ? undefined : error?.message ?? stderr;
  });
  if (folder === undefined) return undefined;
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
