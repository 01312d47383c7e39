import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import type postgres from "postgres";
import { expect, test, vi } from "vitest";
import type { WorkerEvent } from "../src/worker/mod.ts";
import { openStream } from "../src/worker/stream.ts";
import { onEachServer, type TestDatabase } from "./support/databases.ts";
import { BEMI, createSlot, install, OWN_NAME, runWorker, SCHEMA, track } from "./support/installation.ts";
import { seen } from "./support/todos.ts";

const bin = fileURLToPath(new URL("../dist/src/cli/bin-poll.js", import.meta.url));

type Real = TestDatabase & { url: string; db: postgres.Sql };

async function prepared({ db, port }: Real): Promise<void> {
  await install(db);
  await createSlot(db);
  await port.execute("create table todos (id int primary key, n int not null)");
  await track(db, "todos", { capture: "wal" });
}

/** A worker in a process of its own, once it reads or stands by. */
async function start(url: string, mode: string): Promise<ChildProcess> {
  const child = spawn(
    process.execPath,
    [bin, "--database-url", url, "--schema", SCHEMA, "--mode", mode, "--poll-interval", "50"],
    { stdio: ["ignore", "ignore", "pipe"] },
  );
  await new Promise<void>((done, fail) => {
    let log = "";
    child.stderr?.on("data", (chunk: Uint8Array) => {
      log += chunk.toString();
      if (/"mode":|standing by/.test(log)) done();
    });
    child.once("exit", (code) => fail(new Error(`The worker ended with ${code}: ${log}`)));
  });
  return child;
}

async function end(child: ChildProcess, signal: "SIGTERM" | "SIGKILL"): Promise<number | null> {
  const exit = once(child, "exit");
  child.kill(signal);
  return (await exit)[0] as number | null;
}

/** One transaction after the other, each a new todo and one more on the first, until told to stop; returns how many. */
async function load(sql: postgres.Sql, isRunning: () => boolean): Promise<number> {
  await sql`insert into todos values (0, 0)`;
  let n = 0;
  while (isRunning()) {
    n++;
    await sql.begin(async (tx) => {
      await tx`select set_config('bemi.context', ${JSON.stringify({ n })}, true)`;
      await tx`insert into todos values (${n}, ${n})`;
      await tx`update todos set n = ${n} where id = 0`;
    });
  }
  return n;
}

/** Each change there is, once, in order, with its context. */
async function expectAll({ port }: Real, count: number): Promise<void> {
  const changes = await seen(port);
  expect(changes.slice(1).map(({ operation, key, after, context }) => [operation, key, after.n, context.n]))
    .toEqual(
      Array.from({ length: count }, (_, i) => [
        ["CREATE", String(i + 1), i + 1, i + 1],
        ["UPDATE", "0", i + 1, i + 1],
      ]).flat(),
    );
  expect(await port.query(`select from ${BEMI}.gaps`)).toEqual([]);
}

onEachServer("workers on one slot", (open) => {
  test.each(["auto", "poll"])(
    "are replaced in turn under load (%s), by stopping and by killing them: nothing is lost, repeated or out of order",
    async (mode) => {
      await using database = await open();
      await prepared(database);
      const written = async (): Promise<number> =>
        Number((await database.port.query<{ n: string }>(`select count(*) as n from ${BEMI}.changes`))[0]?.n);
      const workers = await Promise.all([0, 1, 2].map(() => start(database.url, mode)));
      let isRunning = true;
      const loading = load(database.db, () => isRunning);
      try {
        for (let turn = 0; turn < 6; turn++) {
          const kind = turn % 3 === 2 ? "SIGKILL" : "SIGTERM";
          const code = await end(workers.shift() as ChildProcess, kind);
          expect(code).toBe(kind === "SIGTERM" ? 0 : null);
          workers.push(await start(database.url, mode));
          // Somebody goes on, with what was written since.
          const before = await written();
          await vi.waitFor(async () => expect(await written()).toBeGreaterThan(before), { timeout: 30_000 });
        }
      } finally {
        isRunning = false;
        await loading;
        await Promise.all(workers.map((child) => end(child, "SIGTERM")));
      }
      const count = await loading;
      await runWorker({ source: database.url, once: true }).finished;
      await expectAll(database, count);
      expect(count).toBeGreaterThan(10);
    },
    180_000,
  );

  test("leave a backend alone that is not theirs, and take over when it is gone", async () => {
    await using database = await open();
    await prepared(database);
    const [{ slot } = { slot: "" }] = await database.port.query<{ slot: string }>(
      `select ${BEMI}.slot_name() as slot`,
    );
    const signal = new AbortController().signal;
    // As another program would, pg_recvlogical or somebody's own.
    const foreign = await openStream(database.url, {
      slot,
      publication: OWN_NAME,
      statusInterval: 1000,
      signal,
    });
    const reader = async (): Promise<number | null | undefined> =>
      (await database.port.query<{ pid: number | null }>(
        "select active_pid as pid from pg_replication_slots where database = current_database()",
      ))[0]?.pid;
    const pid = await reader();
    expect(pid).toEqual(expect.any(Number));
    const events: WorkerEvent[] = [];
    await using worker = runWorker({
      source: database.url,
      heartbeatInterval: 200,
      log: (event) => events.push(event),
    });
    await vi.waitFor(() => expect(events).toContainEqual({ kind: "standby", slot }), { timeout: 20_000 });
    await database.port.execute("insert into todos values (1, 1)");
    // It looks twice a second, and finds it taken each time.
    const looked = worker.turnedAt + 3000;
    await vi.waitFor(() => expect(worker.turnedAt).toBeGreaterThan(looked), { timeout: 20_000 });
    expect(await reader()).toBe(pid);
    expect((await foreign.next(5000)).length).toBeGreaterThan(0);
    expect(await seen(database.port)).toEqual([]);
    await foreign[Symbol.asyncDispose]();
    await vi.waitFor(async () => expect(await seen(database.port)).toHaveLength(1), { timeout: 20_000 });
    // And it knows how far behind it is again, though its first heartbeat was sent before its time.
    await vi.waitFor(() => expect(events).toContainEqual(expect.objectContaining({ kind: "heartbeat" })), {
      timeout: 30_000,
    });
  });

  test("take over with a heartbeat of their own, though the first one went to the worker before them", async () => {
    await using database = await open();
    await prepared(database);
    const first = runWorker({ source: database.url, heartbeatInterval: 200 });
    const events: WorkerEvent[] = [];
    const active = async (): Promise<unknown[]> =>
      await database.port.query(
        "select from pg_replication_slots where active and database = current_database()",
      );
    await vi.waitFor(async () => expect(await active()).toHaveLength(1), { timeout: 20_000 });
    await using _second = runWorker({
      source: database.url,
      heartbeatInterval: 200,
      log: (event) => events.push(event),
    });
    await vi.waitFor(() => expect(events).toContainEqual(expect.objectContaining({ kind: "standby" })), {
      timeout: 20_000,
    });
    // The first reads past the other's heartbeat.
    await database.port.execute("insert into todos values (1, 1)");
    await vi.waitFor(async () => expect(await seen(database.port)).toHaveLength(1), { timeout: 20_000 });
    await first.stop();
    await vi.waitFor(() => expect(events).toContainEqual(expect.objectContaining({ kind: "heartbeat" })), {
      timeout: 30_000,
    });
  });
});
