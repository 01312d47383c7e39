import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { expect, test, vi } from "vitest";
import type { Worker, WorkerEvent } from "../src/worker/mod.ts";
import { onEachServer, openIn, type TestDatabase } from "./support/databases.ts";
import { BEMI, createSlot, install, OWN_NAME, runWorker, SCHEMA, track } from "./support/installation.ts";
import { startServer } from "./support/servers.ts";
import { type Seen, seen, TODOS } from "./support/todos.ts";

type Real = TestDatabase & { url: string };

const bin = fileURLToPath(new URL("../dist/src/cli/bin-poll.js", import.meta.url));

async function todos(database: Real): Promise<void> {
  await install(database.db);
  await createSlot(database.db);
  await database.port.execute(TODOS);
  for (const table of ["todos", "lists"]) await track(database.db, table, { capture: "wal" });
}

/** Why a database's worker ended. */
const failures = new WeakMap<Real, unknown>();

/** A worker that streams, once it does. */
async function streaming(
  database: Real,
  options: { mode?: "auto" | "stream"; source?: string } = {},
): Promise<Worker & { events: WorkerEvent[] }> {
  const events: WorkerEvent[] = [];
  failures.delete(database);
  const worker = runWorker({
    source: database.url,
    mode: "stream",
    ...options,
    log: (event) => events.push(event),
  });
  worker.finished.catch((error: unknown) => failures.set(database, { error, events }));
  await Promise.race([
    worker.finished,
    vi.waitFor(() => expect(events).toContainEqual(expect.objectContaining({ kind: "reading" })), {
      timeout: 10_000,
    }),
  ]);
  return Object.assign(worker, { events });
}

/** The log, as soon as it holds so many changes. */
async function changes(database: Real, count: number): Promise<Seen[]> {
  return await vi.waitFor(async () => {
    const found = await seen(database.port);
    expect(failures.get(database)).toBeUndefined();
    expect(found.length).toBeGreaterThanOrEqual(count);
    return found;
  }, { timeout: 10_000, interval: 20 });
}

const brief = (
  { operation, key, after, context }: Seen,
): unknown[] => [operation, key, after.task, context.user_id];

onEachServer("streaming", (open, version) => {
  test("each change appears once, in order, with its context, while the worker goes on", async () => {
    await using database = await open();
    await todos(database);
    await database.port.execute("insert into todos (task) values ('before')");
    await using worker = await streaming(database);
    await database.port.transaction(async (tx) => {
      await tx.query(`select set_config('bemi.context', '{"user_id": 1}', true)`);
      await tx.execute("insert into todos (task) values ('Sleep')");
      await tx.execute("savepoint s; delete from todos; rollback to s");
      await tx.query(`select set_config('bemi.context', '{"user_id": 2}', true)`);
      await tx.execute("update todos set task = 'Sleep well' where id = 2");
    });
    expect((await changes(database, 3)).map(brief)).toEqual([
      ["CREATE", "1", "before", undefined],
      ["CREATE", "2", "Sleep", 1],
      ["UPDATE", "2", "Sleep well", 2],
    ]);
    await worker.stop();
    await database.port.execute("insert into todos (task) values ('between')");
    await using again = await streaming(database);
    await database.port.execute("insert into todos (task) select 'many' from generate_series(1, 20000)");
    expect(await changes(database, 20_004)).toHaveLength(20_004);
    await again.stop();
    await runWorker({ source: database.url, once: true, mode: "stream" }).finished;
    expect(await seen(database.port)).toHaveLength(20_004);
  });

  test("the slot advances while only untracked tables are written", async () => {
    await using database = await open();
    await todos(database);
    await database.port.execute("create table noise (v text)");
    await using _worker = await streaming(database);
    await database.port.execute("insert into noise select repeat('x', 1000) from generate_series(1, 2000)");
    const [{ lsn } = { lsn: "" }] = await database.port.query<{ lsn: string }>(
      "select pg_current_wal_lsn()::text as lsn",
    );
    await vi.waitFor(async () => {
      // A checkpoint's worth of WAL may stay behind; there is always something written somewhere.
      await database.port.execute("insert into noise select repeat('x', 1000) from generate_series(1, 20)");
      expect(
        await database.port.query(
          `select from pg_replication_slots where database = current_database() and confirmed_flush_lsn >= $1::text::pg_lsn`,
          [lsn],
        ),
      ).toHaveLength(1);
    }, { timeout: 20_000, interval: 200 });
    expect(await seen(database.port)).toEqual([]);
    expect(await database.port.query(`select from ${BEMI}.gaps`)).toEqual([]);
  });

  test("what changes about tables and types while it streams holds from that place on", async () => {
    await using database = await open();
    const { port, db } = database;
    await todos(database);
    await using _worker = await streaming(database);
    await port.execute(
      "create type spot as (x int); create table pins (id int primary key, at spot, secret text)",
    );
    await track(db, "pins", { capture: "wal" });
    await port.execute("insert into pins values (1, row(1), 'open')");
    await track(db, "pins", { mask: ["secret"] });
    await port.execute("insert into pins values (2, row(2), 'hidden')");
    // How a type was made up is asked when it is needed: so let it be.
    await changes(database, 2);
    await port.execute("alter type spot add attribute y text");
    await port.execute("insert into pins values (3, row(3, 'three'), 'hidden')");
    await port.execute(
      "alter table pins rename column secret to password; alter table pins rename to places",
    );
    await port.execute("insert into places values (4, row(4, 'four'), 'hidden')");
    await changes(database, 4);
    await port.execute(
      "alter table places drop constraint pins_pkey; alter table places add code int generated always as identity primary key",
    );
    await port.execute("insert into places values (5, row(5, 'five'), 'hidden')");
    expect((await changes(database, 5)).map(({ table, key, after }) => [table, key, after])).toEqual([
      ["pins", "1", { id: 1, at: { x: 1 }, secret: "open" }],
      ["pins", "2", { id: 2, at: { x: 2 } }],
      ["pins", "3", { id: 3, at: { x: 3, y: "three" } }],
      ["places", "4", { id: 4, at: { x: 4, y: "four" } }],
      ["places", "5", { id: 5, at: { x: 5, y: "five" }, code: 5 }],
    ]);
  });

  test("it hears of what reconcile() found, before there is a row", async () => {
    await using database = await open();
    await todos(database);
    const { port } = database;
    await port.execute(`update ${BEMI}.settings set track_all = true, capture = 'wal'`);
    await using _worker = await streaming(database);
    await port.execute("insert into todos (task) values ('a')");
    await changes(database, 1);
    // As where the role may create no event trigger.
    await port.transaction(async (tx) => {
      await tx.execute("select set_config('bemi.reconciling', 'on', true)");
      await tx.execute("create table parts (id int primary key) partition by list (id)");
      await tx.execute("create table part_1 partition of parts for values in (1)");
    });
    await port.query(`select ${BEMI}.reconcile()`);
    // PostgreSQL describes a table with its first row.
    await port.execute("truncate part_1");
    expect(await changes(database, 2)).toMatchObject([
      { operation: "CREATE", table: "todos" },
      { operation: "TRUNCATE", table: "parts", context: { db: { partition: true } } },
    ]);
  });

  test("a change of schema that is decoded before others can see it is waited for", async () => {
    const server = await startServer(version, ["fsync=off"]);
    await using _removed = { [Symbol.asyncDispose]: () => server.remove() };
    await using database = await openIn({ version, url: server.url("") });
    const { port, db } = database;
    await todos(database);
    await port.execute("create type spot as (x int); create table pins (id int primary key, at spot)");
    await track(db, "pins", { capture: "wal" });
    await using _worker = await streaming(database);
    await port.execute("insert into pins values (1, row(1))");
    await changes(database, 1);
    // A commit that waits for a standby is in the WAL, and decoded, and nobody sees it.
    const wait = async (standby: string): Promise<void> => {
      await port.execute(`alter system set synchronous_standby_names = '${standby}'`);
      await port.query("select pg_reload_conf()");
      await vi.waitFor(async () => {
        const [row] = await port.query<{ now: string }>(
          "select current_setting('synchronous_standby_names') as now",
        );
        expect(row?.now).toBe(standby);
      }, { timeout: 10_000 });
    };
    await wait("nobody");
    const altered = database.connect({ max: 1 }).unsafe("alter type spot add attribute y text");
    altered.catch(() => {});
    await vi.waitFor(async () => {
      const [row] = await port.query<{ is_sent: boolean }>(
        `select (select count(*) from pg_stat_activity where wait_event = 'SyncRep') > 0
          and sent_lsn >= pg_current_wal_flush_lsn() as is_sent from pg_stat_replication`,
      );
      expect(row?.is_sent).toBe(true);
    }, { timeout: 10_000 });
    // As much as it takes to ask the catalog too early.
    await new Promise((done) => setTimeout(done, 300));
    await wait("");
    await altered;
    await port.execute("insert into pins values (2, row(2, 'two'))");
    expect((await changes(database, 2)).map(({ after }) => after)).toEqual([
      { id: 1, at: { x: 1 } },
      { id: 2, at: { x: 2, y: "two" } },
    ]);
  });

  test("a change that the log cannot hold is set aside, and the stream goes on", async () => {
    await using database = await open();
    await todos(database);
    await database.port.execute("create table docs (id int primary key, body json)");
    await track(database.db, "docs", { capture: "wal" });
    await using worker = await streaming(database);
    await database.port.execute(
      `insert into docs values (1, '{"a": "\\u0000"}'), (2, '1e400000'), (3, '{}')`,
    );
    await database.port.execute("insert into todos (task) values ('goes on')");
    expect((await changes(database, 2)).map((c) => [c.table, c.key])).toEqual([["docs", "3"], [
      "todos",
      "1",
    ]]);
    expect(await database.port.query(`select sqlstate from ${BEMI}.set_aside order by 1`)).toEqual([
      { sqlstate: "22003" },
      { sqlstate: "22P05" },
    ]);
    await vi.waitFor(() =>
      expect(worker.events.filter(({ kind }) => kind === "reading").length).toBeGreaterThan(1)
    );
    await database.port.execute("insert into todos (task) values ('and on')");
    await changes(database, 3);
  });

  test("a publication that was dropped stops it, and one made anew is a gap", async () => {
    await using database = await open();
    await todos(database);
    await using worker = await streaming(database);
    await database.port.execute("insert into todos (task) values ('seen')");
    await changes(database, 1);
    await database.port.execute(`drop publication ${OWN_NAME}`);
    await database.port.execute("insert into todos (task) values ('unseen')").catch(() => {});
    await expect(worker.finished).rejects.toMatchObject({
      code: "wal_unavailable",
    });
    await database.port.query(`select ${BEMI}.reconcile()`);
    // Up to PostgreSQL 17 the slot cannot be read past WAL from when there was none: it is made anew as well.
    if (Number(database.server) < 18) {
      await database.port.query(`select pg_drop_replication_slot(${BEMI}.slot_name())`);
      await createSlot(database.db);
    }
    await using again = await streaming(database);
    await database.port.execute("insert into todos (task) values ('seen again')");
    expect((await changes(database, 2)).map(({ after }) => after.task)).toEqual(["seen", "seen again"]);
    expect(again.events).toContainEqual(expect.objectContaining({ kind: "gap" }));
    expect(await database.port.query(`select from ${BEMI}.gaps`)).toHaveLength(1);
  });

  test("a second worker stands by, and takes over within seconds of a kill", async () => {
    await using database = await open();
    await todos(database);
    const args = [bin, "--database-url", database.url, "--schema", SCHEMA];
    const first = spawn(process.execPath, args, { stdio: ["ignore", "ignore", "pipe"] });
    await vi.waitFor(async () => {
      expect(
        await database.port.query(
          "select from pg_replication_slots where active and database = current_database()",
        ),
      )
        .toHaveLength(1);
    }, { timeout: 20_000 });
    const events: WorkerEvent[] = [];
    await using _second = runWorker({ source: database.url, log: (event) => events.push(event) });
    await vi.waitFor(() => expect(events).toContainEqual(expect.objectContaining({ kind: "standby" })), {
      timeout: 5000,
    });
    await database.port.execute("insert into todos (task) values ('by the first')");
    await changes(database, 1);
    first.kill("SIGKILL");
    await once(first, "exit");
    const killedAt = Date.now();
    await database.port.execute("insert into todos (task) values ('by the second')");
    expect((await changes(database, 2)).map(({ after }) => after.task)).toEqual([
      "by the first",
      "by the second",
    ]);
    expect(Date.now() - killedAt).toBeLessThan(5000);
  });

  test("where streaming is refused, it says so: auto polls, stream ends with the remedy", async () => {
    // Whoever may not stream may not read a slot by SQL either; a server whose walsenders are taken lets the latter be.
    const server = await startServer(version, ["fsync=off", "max_wal_senders=1"]);
    await using _removed = { [Symbol.asyncDispose]: () => server.remove() };
    await using database = await openIn({ version, url: server.url("") });
    const { port } = database;
    await todos(database);
    const other = database.connect({
      max: 1,
      connection: { replication: "database" } as never,
      fetch_types: false,
    });
    await other.unsafe("IDENTIFY_SYSTEM");
    await using auto = await streaming(database, { mode: "auto" });
    expect(auto.events).toContainEqual({
      kind: "reading",
      mode: "poll",
      reason: "streaming was refused (53300)",
    });
    await port.execute("insert into todos (task) values ('polled')");
    expect((await changes(database, 1)).map(brief)).toEqual([["CREATE", "1", "polled", undefined]]);
    await auto.stop();
    await expect(runWorker({ source: database.url, mode: "stream" }).finished).rejects.toMatchObject({
      code: "wal_unavailable",
      hint: expect.stringMatching(/max_wal_senders.*--mode poll/),
    });
    await other.end({ timeout: 1 });
  });

  test("another Bemi's triggers give their rows a context where that is accepted, and no more", async () => {
    await using database = await open();
    const { port, db } = database;
    await install(db);
    await createSlot(db);
    await port.execute(`${TODOS}
      create function _bemi_row_trigger_func() returns trigger language plpgsql as $$ begin
        perform pg_logical_emit_message(true, '_bemi', coalesce(substring(current_query() from '/\\*Bemi (.*) Bemi\\*/'), '{}'));
        return case tg_op when 'DELETE' then old else new end; end $$;
      create trigger _bemi_row_trigger_lists before insert or update or delete on lists for each row execute function _bemi_row_trigger_func();`);
    for (const table of ["todos", "lists"]) await track(db, table, { capture: "wal" });
    // As in a database that has only the other's: ours say nothing of lists.
    await port.execute(
      `select set_config('bemi.reconciling', 'on', true); drop trigger "!${OWN_NAME}_context" on lists`,
    );
    const write = (n: number): Promise<void> =>
      port.execute(
        `insert into lists (title) values ('home') /*Bemi {"user_id": ${n}, "db": {"user": "root"}} Bemi*/`,
      );
    await write(1);
    await runWorker({ source: database.url, once: true }).finished;
    await write(2);
    await port.execute(`insert into lists (title) values ('two'), ('rows') /*Bemi {"user_id": 3} Bemi*/`);
    await port.execute(`select set_config('bemi.reconciling', 'on', true);
      alter table lists disable trigger _bemi_row_trigger_lists; delete from lists where id = 1`);
    await runWorker({ source: database.url, once: true, acceptBemiMessages: true }).finished;
    expect((await seen(port)).map(({ operation, key, context }) => [`${operation} ${key}`, context])).toEqual(
      [
        ["CREATE 1", { db: { context_error: "no message" } }],
        ["CREATE 2", { user_id: 2 }],
        ["CREATE 3", { user_id: 3 }],
        ["CREATE 4", { user_id: 3 }],
        ["DELETE 1", { db: { context_error: "no message" } }],
      ],
    );
  });
});
