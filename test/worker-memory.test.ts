import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { onEachServer } from "./support/databases.ts";
import { BEMI, createSlot, install, SCHEMA, track } from "./support/installation.ts";

const bin = fileURLToPath(new URL("../dist/src/cli/bin-poll.js", import.meta.url));

// Asked of the process itself as it ends: the most that it ever had.
const TELL = "data:text/javascript," + encodeURIComponent(
  `process.on("exit", () => process.stderr.write("maxrss " + process.resourceUsage().maxRSS + "\\n"));`,
);

onEachServer("a transaction of 1,000,000 rows", (open) => {
  test("comes whole, and stays under 256 MB in the worker", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    await createSlot(db);
    await port.execute("create table items (id int primary key, v text)");
    await track(db, "items", { capture: "wal" });
    await port.execute("insert into items select n, 'item ' || n from generate_series(1, 1000000) n");
    const child = spawn(
      process.execPath,
      ["--import", TELL, bin, "--once", "--schema", SCHEMA, "--database-url", database.url],
      { stdio: ["ignore", "ignore", "pipe"] },
    );
    let said = "";
    child.stderr.on("data", (chunk: Uint8Array) => said += chunk.toString());
    expect([...await once(child, "close"), said]).toEqual([0, null, expect.any(String)]);
    const kilobytes = Number(/maxrss (\d+)/.exec(said)?.[1]);
    expect(kilobytes).toBeGreaterThan(20_000);
    expect(kilobytes / 1024).toBeLessThan(256);
    const [row] = await port.query<{ rows: number; keys: number; commits: number; last: string }>(
      `select count(*)::int as rows, count(distinct primary_key)::int as keys, count(distinct commit_lsn)::int as commits,
        max(transaction_index)::text as last from ${BEMI}.changes`,
    );
    expect(row).toEqual({ rows: 1_000_000, keys: 1_000_000, commits: 1, last: "999999" });
  }, 600_000);
});
