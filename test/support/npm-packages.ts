import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Packages that a test drives, kept outside the checkout between runs. */
export interface NpmPackages {
  readonly folder: string;
  readonly require: NodeJS.Require;
}

/** `undefined`, and a warning that says why, where they cannot be installed. */
export function npmPackages(name: string, packages: readonly string[]): NpmPackages | undefined {
  const folder = join(
    tmpdir(),
    `bemi-test-npm-${name}-${packages.join("-").replace(/[^\w.]+/g, "-")}`.slice(0, 200),
  );
  const complete = join(folder, ".complete");
  if (!existsSync(complete)) {
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, "package.json"), '{ "private": true }');
    const options = ["--no-audit", "--no-fund", "--no-save", "--ignore-scripts"];
    const { status, stderr } = spawnSync("npm", ["install", ...options, ...packages], {
      cwd: folder,
      encoding: "utf8",
    });
    if (status !== 0) {
      console.warn(`The tests with ${name} are skipped: npm install ${packages.join(" ")} failed: ${stderr}`);
      return undefined;
    }
    writeFileSync(complete, "");
  }
  return { folder, require: createRequire(join(folder, "package.json")) };
}
