import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import postgres from "postgres";
import { expect, inject, test } from "vitest";
import { connect } from "../src/database/connect.ts";
import { install, track } from "../src/install/mod.ts";
import { createSlot, runWorker } from "../src/worker/mod.ts";
import { inTransaction } from "../src/worker/sql.ts";
import { onEachServer } from "./support/databases.ts";
import { startServer } from "./support/servers.ts";
import { seen } from "./support/todos.ts";

const bin = fileURLToPath(new URL("../dist/src/cli/bin-poll.js", import.meta.url));

/** A number from 0 to below `n`, the same in every run. */
function random(seed: number): (n: number) => number {
  let state = seed;
  return (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor(state / 2 ** 32 * n);
  };
}

// Each key belongs to one client, so that its context says who must have written it.
async function client(
  url: () => string,
  who: number,
  rounds: number,
  isRunning: () => boolean,
): Promise<void> {
  const next = random(who + 1);
  for (let round = 0; round < rounds && isRunning(); round++) {
    const sql = postgres(url(), { max: 1, fetch_types: false, onnotice() {}, connect_timeout: 2 });
    try {
      for (let i = 0; i < 15; i++) {
        await inTransaction(sql, async (connection) => {
          const tx = connection as unknown as postgres.TransactionSql;
          for (let statement = 0; statement <= next(4); statement++) {
            await tx`select set_config('bemi.context', ${
              JSON.stringify({ who, statement: `${round}.${i}.${statement}` })
            }, true)`;
            const key = who * 1000 + next(40);
            switch (next(6)) {
              case 0:
                await tx`delete from items where id = ${key}`;
                break;
              case 1:
                await tx`update items set id = ${who * 1000 + next(40)} where id = ${key}
                  and not exists (select from items where id between ${who * 1000} and ${
                  who * 1000 + 999
                } and id <> ${key})`;
                break;
              case 2:
                await tx.unsafe(`savepoint s; select set_config('bemi.context', '{"who": "nobody"}', true);
                  insert into items select ${who * 1000} + i, 'undone' from generate_series(500, 510) i;
                  rollback to s`);
                break;
              default:
                await tx`insert into items values (${key}, ${`by ${who}`}) on conflict (id) do update set v = items.v || '.'`;
            }
          }
          if (next(5) === 0) throw new Error("abort");
        }).catch((error: Error) => {
          if (error.message !== "abort") throw error;
        });
      }
    } catch {
      // The server is away: another round, another connection.
      await new Promise((done) => setTimeout(done, 100));
    } finally {
      await sql.end({ timeout: 1 });
    }
  }
}

test.each(
  inject("servers").flatMap(({ version }) =>
    ["poll", "stream", "auto"].map((mode) => [mode, version] as const)
  ),
)(
  "by %s on PostgreSQL %s, through kills of the worker and crashes of the server, replaying the log gives the live table",
  async (mode, version) => {
    const server = await startServer(version, ["fsync=on", "synchronous_commit=off"]);
    const url = server.url();
    let worker: ChildProcess | undefined;
    try {
      let sql = postgres(url, { max: 2, onnotice() {} });
      await install(sql);
      await createSlot(sql);
      await sql.unsafe("create table items (id int primary key, v text)");
      await track(sql, "items", { capture: "wal" });
      await sql.end();

      let running = true;
      const clients = Promise.all([1, 2, 3].map((who) => client(() => url, who, 30, () => running)));
      const next = random(42);
      for (let kill = 0; kill < 8; kill++) {
        worker = spawn(process.execPath, [
          bin,
          "--database-url",
          url,
          "--poll-interval",
          "20",
          "--mode",
          mode,
        ], {
          stdio: "ignore",
        });
        await new Promise((done) => setTimeout(done, 300 + next(500)));
        if (kill % 4 === 2) {
          await server.stop("immediate");
          await server.start();
        }
        worker.kill("SIGKILL");
      }
      running = false;
      await clients;
      await runWorker({ source: url, once: true }).finished;

      sql = postgres(url, { max: 2, onnotice() {} });
      const changes = await seen(connect(sql));
      const replayed = new Map<string, unknown>();
      for (const change of changes) {
        const key = change.key ?? "";
        const current = replayed.get(change.former ?? key);
        // Each change starts from what the one before it left: none is missing, none is twice.
        expect(current).toEqual(change.operation === "CREATE" ? undefined : change.before);
        replayed.delete(change.former ?? key);
        if (change.operation !== "DELETE") replayed.set(key, change.after);
        expect(change.context.who).toBe(Math.floor(Number(key) / 1000));
      }
      const live = await sql`select id, v from items order by id`;
      const sorted = [...replayed.values()].sort((a, b) =>
        (a as { id: number }).id - (b as { id: number }).id
      );
      expect(sorted).toEqual(live.map((row) => ({ ...row })));
      expect(changes.length).toBeGreaterThan(20);
      expect(await sql`select * from bemi.gaps`).toHaveLength(0);
      await sql.end();
    } finally {
      worker?.kill("SIGKILL");
      await server.remove();
    }
  },
  120_000,
);

onEachServer("bemi-poll", (open) => {
  test("far behind, it begins with little and takes ever more, so that one that is killed often gets on", async () => {
    await using database = await open();
    const { db, port, url } = database;
    await install(db);
    await createSlot(db);
    await port.execute("create table todos (id int primary key, task text)");
    await track(db, "todos", { capture: "wal" });
    await port.execute(`do $$ begin for i in 0..149 loop
      insert into todos select i * 100 + n, 'todo' from generate_series(1, 100) n; commit; end loop; end $$`);
    await runWorker({ source: url, once: true }).finished;
    const rounds = await port.query<{ changes: number }>(
      `select count(*)::int as changes from bemi.changes group by xmin::text order by min(commit_lsn)`,
    );
    expect(rounds.reduce((sum, { changes }) => sum + changes, 0)).toBe(15_000);
    const [first = 0, second = 0, third = 0] = rounds.map(({ changes }) => changes);
    expect(first).toBeLessThanOrEqual(2000);
    expect(second).toBeGreaterThan(2 * first);
    expect(third).toBeGreaterThan(0);
  });

  test("says what it does as JSON lines on stderr, ends the round at SIGTERM and exits 0", async () => {
    await using database = await open();
    await install(database.db);
    await createSlot(database.db);
    await database.port.execute("create table items (id int primary key, v text)");
    await track(database.db, "items", { capture: "wal" });
    const child = spawn(process.execPath, [bin, "--database-url", database.url], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    let [out, err] = ["", ""];
    child.stdout.on("data", (chunk) => out += String(chunk));
    child.stderr.on("data", (chunk) => err += String(chunk));
    const ended = new Promise<number | null>((done) => child.once("exit", done));
    await database.port.execute("insert into items values (1, 's3cret')");
    await expect.poll(() => err, { timeout: 20_000 }).toMatch(/"written":1/);
    child.kill("SIGTERM");
    expect(await ended).toBe(0);
    const lines = err.trim().split("\n").map((line) => JSON.parse(line) as { level: string; msg: string });
    const told = lines.map((line) => line.msg);
    expect([told[0], told.at(-1)]).toEqual(["Reading the Write-Ahead Log", "Stopped"]);
    expect(told).toContain("Changes written");
    expect(out).toBe("");
    expect(err).not.toMatch(/s3cret/);
  });

  test("exits 1 where the slot is gone, and 4 where nothing is installed, each with the remedy", async () => {
    await using database = await open();
    const run = () =>
      spawnSync(process.execPath, [bin, "--once", "--database-url", database.url], { encoding: "utf8" });
    expect(run()).toMatchObject({ status: 4, stderr: expect.stringMatching(/bemi init/) });
    await install(database.db);
    expect(run()).toMatchObject({ status: 1, stderr: expect.stringMatching(/bemi init --capture wal/) });
  });
});
