import type postgres from "postgres";
import { expect, onTestFinished, test, vi } from "vitest";
import type { WorkerEvent } from "../src/worker/mod.ts";
import { onEachServer, openIn, type TestDatabase } from "./support/databases.ts";
import { BEMI, createSlot, install, poll, runWorker, track } from "./support/installation.ts";
import { startServer } from "./support/servers.ts";
import { seen } from "./support/todos.ts";

type Real = TestDatabase & { url: string; db: postgres.Sql };

async function todos({ db, port }: Real): Promise<void> {
  await install(db);
  await createSlot(db);
  await port.execute("create table todos (id int generated always as identity primary key, task text)");
  await track(db, "todos", { capture: "wal" });
}

async function write({ db }: Real, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    await db.begin(async (tx) => {
      await tx`select set_config('bemi.context', ${JSON.stringify({ job: i })}, true)`;
      await tx`insert into todos (task) values ('a')`;
    });
  }
}

onEachServer("polling on a schedule", (open, server) => {
  test("a call ends when all is written, or at its limit, and the next one goes on there", async () => {
    await using database = await open();
    await todos(database);
    await write(database, 30);
    const first = await poll({ source: database.url, limit: 20 });
    expect(first).toMatchObject({ setAside: 0, isCaughtUp: false, isBusy: false });
    // A message for begin, the context, the row, and commit, and one for the table.
    expect(first.written).toBeGreaterThan(0);
    expect(first.written).toBeLessThan(20);
    let written = first.written;
    while (written < 30) written += (await poll({ source: database.url, limit: 20 })).written;
    expect(await poll({ source: database.url })).toEqual({
      written: 0,
      setAside: 0,
      isCaughtUp: true,
      isBusy: false,
    });
    expect((await seen(database.port)).map(({ key, context }) => [key, context.job])).toEqual(
      Array.from({ length: 30 }, (_, i) => [String(i + 1), i]),
    );
    // Its connections are closed.
    await vi.waitFor(async () =>
      expect(
        await database.db`select from pg_stat_activity
          where datname = current_database() and application_name = 'bemi worker'`,
      ).toHaveLength(0)
    );
  });

  test("overlapping calls, and one beside a worker, leave the work to the other, and say so", async () => {
    await using database = await open();
    await todos(database);
    await write(database, 20);
    const checkpoint = { source: database.url, limit: 4 };
    expect((await poll(checkpoint)).written).toBeGreaterThan(0);
    await database.db.begin(async (other) => {
      await other.unsafe(`select from ${BEMI}.checkpoints for update`);
      expect(await poll({ source: database.url })).toEqual({
        written: 0,
        setAside: 0,
        isCaughtUp: false,
        isBusy: true,
      });
    });
    const both = await Promise.all([poll({ source: database.url }), poll({ source: database.url })]);
    expect(both.some(({ isCaughtUp }) => isCaughtUp)).toBe(true);
    expect(await seen(database.port)).toHaveLength(20);

    const events: WorkerEvent[] = [];
    await using worker = runWorker({
      source: database.url,
      mode: "stream",
      log: (event) => events.push(event),
    });
    await vi.waitFor(
      () => expect(events).toContainEqual(expect.objectContaining({ kind: "reading", mode: "stream" })),
      { timeout: 20_000 },
    );
    await write(database, 1);
    await vi.waitFor(async () => expect(await seen(database.port)).toHaveLength(21), { timeout: 20_000 });
    await database.db`insert into todos (task) values ('b')`;
    const beside = await poll({ source: database.url });
    expect(beside.written).toBe(0);
    await vi.waitFor(async () => expect(await seen(database.port)).toHaveLength(22), { timeout: 20_000 });
    await worker.stop();
  });

  test("it stops when told to, writes into another database, and makes the partitions there", async () => {
    await using database = await open();
    await using log = await open();
    await todos(database);
    await install(log.db);
    await log.port.execute(`do $$ begin execute (select format('drop table %s', max(inhrelid)::regclass)
      from pg_inherits where inhparent = '${BEMI}.changes'::regclass); end $$`);
    const partitions = (): Promise<object[]> =>
      log.port.query(`select from pg_inherits where inhparent = '${BEMI}.changes'::regclass`);
    const before = (await partitions()).length;
    await write(database, 3);
    const options = { source: database.url, destination: log.url };
    expect(await poll({ ...options, signal: AbortSignal.abort() })).toMatchObject({
      written: 0,
      isCaughtUp: false,
      isBusy: false,
    });
    expect(await poll(options)).toMatchObject({ written: 3, isCaughtUp: true });
    expect(await seen(log.port)).toHaveLength(3);
    expect(await partitions()).toHaveLength(before + 1);
    expect(await seen(database.port)).toEqual([]);
  });

  test("tables that changed long ago, or were truncated, are asked about once, not at each place where it is read, and not for others", async () => {
    // Others' transactions on a server keep what is behind from being known to be.
    const own = await startServer(server, ["fsync=off"]);
    onTestFinished(() => own.remove());
    await using database = await openIn({ version: server, url: own.url("") });
    await todos(database);
    await database.db.unsafe(`do $$ begin
      execute format('alter database %I set track_functions = "all"', current_database()); end $$`);
    for (let i = 0; i < 15; i++) {
      await database.db.unsafe(`alter table todos add column c${i} int default ${i}`);
      await database.db.unsafe("insert into todos (task) values ('a')");
      await database.db.unsafe("truncate todos");
    }
    expect(await poll({ source: database.url })).toMatchObject({ written: 30, isCaughtUp: true });
    const images = (await seen(database.port)).flatMap((change) =>
      change.operation === "CREATE" ? [Object.keys(change.after ?? {}).length] : []
    );
    expect(images).toEqual(Array.from({ length: 15 }, (_, i) => 3 + i));
    // Each session has told of its calls when it has ended.
    const calls = async (): Promise<number> => {
      await vi.waitFor(async () => {
        const others = await database.db`select from pg_stat_activity
          where datname = current_database() and backend_type in ('client backend', 'walsender') and pid <> pg_backend_pid()`;
        expect(others).toHaveLength(0);
      }, 20_000);
      const [row] = await database.db<{ calls: number }[]>`
        select sum(calls)::int as calls from pg_stat_user_functions where funcname = 'read_tables'`;
      return row?.calls ?? 0;
    };
    const before = await calls();
    expect(before).toBeGreaterThan(0);
    expect(before).toBeLessThan(6);
    await database.db.unsafe("create table untracked as select generate_series(1, 10000) as n");
    expect(await poll({ source: database.url })).toMatchObject({ written: 0, isCaughtUp: true });
    expect(await calls()).toBe(before);
  });

  test("what keeps it from working is thrown, with the remedy", async () => {
    await using database = await open();
    await expect(poll({ source: database.url })).rejects.toMatchObject({ code: "schema_missing" });
    await install(database.db);
    await expect(poll({ source: database.url })).rejects.toMatchObject({ code: "wal_unavailable" });
    await expect(poll({ source: "postgres://127.0.0.1:1/nowhere" })).rejects.toMatchObject({
      code: "ECONNREFUSED",
    });
  });
});
