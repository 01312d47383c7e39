import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { expect, test, vi } from "vitest";
import { onEachServer, type TestDatabase } from "./support/databases.ts";
import { BEMI, createSlot, install, SCHEMA, track } from "./support/installation.ts";

const bin = fileURLToPath(new URL("../dist/src/cli/bin-poll.js", import.meta.url));

// Asked of the process itself as it ends: the most that it ever had.
const TELL = "data:text/javascript," + encodeURIComponent(
  `process.on("exit", () => process.stderr.write("maxrss " + process.resourceUsage().maxRSS + "\\n"));`,
);

/** A worker in a process of its own; `peak` is in megabytes, once it has ended well. */
function worker(url: string, args: readonly string[]) {
  const child = spawn(
    process.execPath,
    ["--import", TELL, bin, "--schema", SCHEMA, "--database-url", url, ...args],
    { stdio: ["ignore", "ignore", "pipe"] },
  );
  let said = "";
  child.stderr.on("data", (chunk: Uint8Array) => said += chunk.toString());
  const closed = once(child, "close");
  return {
    child,
    said: () => said,
    peak: async (): Promise<number> => {
      expect([...await closed, said]).toEqual([0, null, expect.any(String)]);
      return Number(/maxrss (\d+)/.exec(said)?.[1]) / 1024;
    },
  };
}

async function prepared({ db, port }: TestDatabase): Promise<void> {
  await install(db);
  await createSlot(db);
  await port.execute("create table items (id int primary key, v text)");
  await track(db, "items", { capture: "wal" });
}

const INSERT = "insert into items select n, 'item ' || n from generate_series(1, 1000000) n";

async function expectAll({ port }: TestDatabase): Promise<void> {
  const [row] = await port.query<{ rows: number; keys: number; commits: number; last: string }>(
    `select count(*)::int as rows, count(distinct primary_key)::int as keys, count(distinct commit_lsn)::int as commits,
      max(transaction_index)::text as last from ${BEMI}.changes`,
  );
  expect(row).toEqual({ rows: 1_000_000, keys: 1_000_000, commits: 1, last: "999999" });
}

onEachServer("a transaction of 1,000,000 rows", (open) => {
  test("comes whole, and stays under 256 MB in the worker", async () => {
    await using database = await open();
    await prepared(database);
    await database.port.execute(INSERT);
    const peak = await worker(database.url, ["--once"]).peak();
    expect(peak).toBeGreaterThan(20);
    expect(peak).toBeLessThan(256);
    await expectAll(database);
  }, 600_000);

  test("stays under it as well where the worker streams meanwhile", async () => {
    await using database = await open();
    await prepared(database);
    const { child, said, peak } = worker(database.url, ["--mode", "stream"]);
    try {
      await vi.waitFor(() => expect(said()).toContain('"mode":"stream"'), { timeout: 60_000 });
      await database.port.execute(INSERT);
      await vi.waitFor(
        async () => expect(await database.port.query(`select from ${BEMI}.changes limit 1`)).toHaveLength(1),
        { timeout: 400_000, interval: 500 },
      );
    } finally {
      child.kill("SIGTERM");
    }
    expect(await peak()).toBeLessThan(256);
    await expectAll(database);
  }, 600_000);
});
