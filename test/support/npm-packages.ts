import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { cachedFolder } from "./cached-folder.ts";

/** Packages that a test drives, without their install scripts. */
export interface NpmPackages {
  readonly folder: string;
  readonly require: NodeJS.Require;
}

/** @param prepare what is to be done in the folder besides; returns why it failed, if so */
export function npmPackages(
  name: string,
  packages: readonly string[],
  prepare: (folder: string) => string | undefined = () => undefined,
): NpmPackages | undefined {
  const folder = cachedFolder(`npm-${name}`, packages, (folder) => {
    writeFileSync(join(folder, "package.json"), '{ "private": true }');
    const options = ["--no-audit", "--no-fund", "--no-save", "--ignore-scripts"];
    const { status, stderr, error } = spawnSync("npm", ["install", ...options, ...packages], {
      cwd: folder,
      encoding: "utf8",
    });
    return status === 0 ? prepare(folder) : error?.message ?? stderr;
  });
  return folder === undefined ? undefined : { folder, require: createRequire(join(folder, "package.json")) };
}
