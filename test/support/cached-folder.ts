import { existsSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/**
 * A folder outside the checkout that is filled once and kept between runs; two runs that fill it at once do no harm.
 * `fill` returns why it could not; the tests that need the folder are skipped then, which is said.
 */
export function cachedFolder(
  name: string,
  packages: readonly string[],
  fill: (folder: string) => string | undefined,
): string | undefined {
  const key = `bemi-test-${name}-${packages.join("-").replace(/[^\w.]+/g, "-")}`.slice(0, 200);
  const folder = join(tmpdir(), key);
  if (existsSync(folder)) return folder;
  const partial = mkdtempSync(`${folder}-`);
  const failure = fill(partial);
  if (failure !== undefined) {
    rmSync(partial, { recursive: true, force: true });
    console.warn(
      `The tests with ${name} are skipped, as ${packages.join(" ")} cannot be installed: ${
        failure.trim().split("\n").at(-1)
      }`,
    );
    return undefined;
  }
  try {
    renameSync(partial, folder);
  } catch {
    // Another run was faster.
    rmSync(partial, { recursive: true, force: true });
  }
  return folder;
}
