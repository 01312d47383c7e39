import { spawnSync } from "node:child_process";
import { expect } from "vitest";

/** Why a dump of this server cannot be tried here: pg_dump is none of the test servers' files. */
export function dumpRefusal(server: string): string | undefined {
  const { stdout, error } = spawnSync("pg_dump", ["--version"], { encoding: "utf8" });
  if (error) return "pg_dump is not installed";
  const version = /(\d+)\.\d+/.exec(stdout)?.[1] ?? "0";
  return Number(version) < Number(server) ? `pg_dump ${version} cannot dump PostgreSQL ${server}` : undefined;
}

/** What pg_dump and psql carry over, both as they come. */
export function dumpAndRestore(from: string, to: string, options: readonly string[] = []): void {
  const dump = spawnSync("pg_dump", [...options, from], { encoding: "utf8", maxBuffer: 1 << 28 });
  expect(dump.stderr).toBe("");
  const { stderr, status } = spawnSync("psql", ["-q", "-v", "ON_ERROR_STOP=1", to], {
    input: dump.stdout,
    encoding: "utf8",
  });
  expect({ stderr: stderr.replace(/^.*NOTICE.*\n/gm, ""), status }).toEqual({ stderr: "", status: 0 });
}
