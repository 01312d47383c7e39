import { expect, test } from "vitest";
import {
  BEMI,
  createSlot,
  install,
  maintain,
  OWN_NAME,
  runWorker,
  SCHEMA,
  track,
  uninstall,
  untrack,
} from "./support/installation.ts";
import { onEachServer, type TestDatabase } from "./support/databases.ts";
import { seal } from "../src/install/mod.ts";
import { type Seen, seen, TODOS } from "./support/todos.ts";

type Real = TestDatabase & { url: string };

async function todos(database: Real, tables: readonly string[] = ["todos", "lists"]): Promise<void> {
  await install(database.db);
  await createSlot(database.db);
  await database.port.execute(TODOS);
  for (const table of tables) await track(database.db, table, { capture: "wal" });
}

/** Everything that is committed, into the log. */
async function catchUp(database: Real): Promise<void> {
  await runWorker({ source: database.url, once: true }).finished;
}

onEachServer("capture from the WAL", (open) => {
  test("each change appears once, with before, after and its context", async () => {
    await using database = await open();
    await todos(database);
    await database.port.transaction(async (tx) => {
      await tx.query(`select set_config('bemi.context', '{"user_id": 1}', true)`);
      await tx.execute("insert into todos (task) values ('Sleep'), ('Eat')");
      await tx.execute("update todos set is_completed = true where id = 1");
      await tx.query(`select set_config('bemi.context', '{"user_id": 2}', true)`);
      await tx.execute("delete from todos where id = 2");
    });
    await catchUp(database);
    await catchUp(database);
    const sleep = { id: 1, task: "Sleep", is_completed: false, list_id: null };
    const eat = { ...sleep, id: 2, task: "Eat" };
    expect((await seen(database.port)).map(({ operation, key, before, after, context }) => ({
      operation,
      key,
      before,
      after,
      user: context.user_id,
      SQL: context.SQL,
    }))).toEqual([
      {
        operation: "CREATE",
        key: "1",
        before: {},
        after: sleep,
        user: 1,
        SQL: expect.stringMatching(/^insert/),
      },
      {
        operation: "CREATE",
        key: "2",
        before: {},
        after: eat,
        user: 1,
        SQL: expect.stringMatching(/^insert/),
      },
      {
        operation: "UPDATE",
        key: "1",
        before: sleep,
        after: { ...sleep, is_completed: true },
        user: 1,
        SQL: expect.stringMatching(/^update/),
      },
      {
        operation: "DELETE",
        key: "2",
        before: eat,
        after: {},
        user: 2,
        SQL: expect.stringMatching(/^delete/),
      },
    ]);
  });

  test("what was rolled back leaves nothing, and its context goes with it", async () => {
    await using database = await open();
    await todos(database);
    await database.port.execute("create function pg_temp.noop() returns void language sql as ''");
    await database.port.transaction(async (tx) => {
      await tx.execute(`select set_config('bemi.context', '{"user": "a"}', true);
        insert into todos (task) values ('kept');
        savepoint s;
        select set_config('bemi.context', '{"user": "b"}', true);
        insert into todos (task) values ('undone');
        update todos set task = 'undone' where task = 'kept';
        rollback to s;
        update todos set is_completed = true where task = 'kept'`);
    });
    await database.port.transaction(async (tx) => {
      await tx.execute("insert into todos (task) values ('never')");
      throw new Error("back");
    }).catch(() => {});
    await catchUp(database);
    expect((await seen(database.port)).map((c) => [c.operation, c.after.task, c.context.user])).toEqual([
      ["CREATE", "kept", "a"],
      ["UPDATE", "kept", "a"],
    ]);
  });

  test("rows without a message of their own are marked, and never take a neighbour's context", async () => {
    await using database = await open();
    await todos(database);
    await database.port.transaction(async (tx) => {
      await tx.execute(`select set_config('bemi.context', '{"user": "a"}', true);
        insert into todos (task) values ('a');
        set local session_replication_role = replica;
        insert into todos (task) values ('still a');
        set local session_replication_role = origin`);
      // The event trigger would switch it on again.
      await tx.execute("set local bemi.reconciling = 'on'");
      await tx.execute(`alter table todos disable trigger "!${OWN_NAME}_context"`);
      await tx.execute("insert into todos (task) values ('a, since the trigger spoke of INSERT before')");
      await tx.execute("update todos set task = 'unknown' where task = 'a'");
    });
    await catchUp(database);
    expect((await seen(database.port)).map((c) => [c.operation, c.context.user, c.context.db])).toMatchObject(
      [
        ["CREATE", "a", { user: "postgres" }],
        ["CREATE", "a", { user: "postgres" }],
        ["CREATE", "a", { user: "postgres" }],
        ["UPDATE", undefined, { context_error: "no message" }],
      ],
    );
  });

  test("COPY, a two-phase transaction and a transaction of many rows come whole, in order, once", async () => {
    await using database = await open();
    await todos(database);
    await database.port.execute(
      "insert into todos (task) select 'row ' || i from generate_series(1, 1000) i",
    );
    await database.port.execute(`copy todos (task) from program 'seq 1 1000'`);
    await database.db.begin(async (tx) => {
      await tx`select set_config('bemi.context', '{"user": "2pc"}', true)`;
      await tx`insert into todos (task) values ('two-phase')`;
      await tx.prepare(`bemi_${process.pid}_wal`);
    });
    await database.port.execute("insert into todos (task) values ('between')");
    await catchUp(database);
    expect(await seen(database.port)).toHaveLength(2001);
    await database.port.execute(`commit prepared 'bemi_${process.pid}_wal'`);
    await catchUp(database);
    const changes = await seen(database.port);
    expect(changes.slice(2000).map((c) => [c.after.task, c.context.user])).toEqual([["between", undefined], [
      "two-phase",
      "2pc",
    ]]);
    expect(new Set(changes.map((c) => c.key)).size).toBe(2002);
  });

  test("what is decoded is what was, whatever was renamed or dropped since", async () => {
    await using database = await open();
    await todos(database);
    await database.port.execute("insert into todos (task) values ('a')");
    await database.port.execute(
      "alter table todos rename column task to title; alter table todos add column note text default 'n'",
    );
    await database.port.execute("update todos set note = 'm'");
    await database.port.execute("alter table todos rename to tasks; alter table tasks drop column title");
    await database.port.execute("update tasks set note = 'o'");
    await database.port.execute("create table gone (id int primary key)");
    await track(database.db, "gone", { capture: "wal" });
    await database.port.execute("insert into gone values (1); drop table gone");
    await catchUp(database);
    expect((await seen(database.port)).map((c) => [c.table, c.key, Object.keys(c.after).sort().join()]))
      .toEqual([
        ["todos", "1", "id,is_completed,list_id,task"],
        ["todos", "1", "id,is_completed,list_id,note,title"],
        ["tasks", "1", "id,is_completed,list_id,note"],
        ["gone", "1", "id"],
      ]);
  });

  test("a large value that an UPDATE left alone is there all the same", async () => {
    await using database = await open();
    await todos(database);
    await database.port.execute("alter table todos alter task set storage external");
    await database.port.execute("insert into todos (task) values (repeat('x', 100000))");
    await database.port.execute("update todos set is_completed = true");
    await catchUp(database);
    const [, update] = await seen(database.port);
    expect([update?.before.task, update?.after.task].map((task) => String(task).length)).toEqual([
      100000,
      100000,
    ]);
  });

  test("in a polled table, a statement that matches nothing costs no transaction, and others have their contexts", async () => {
    await using database = await open();
    await todos(database);
    const { port, db } = database;
    await port.execute(
      `create table jobs (id int, done boolean default false, region int) partition by list (region);
      create table jobs_1 partition of jobs for values in (1); create table jobs_2 partition of jobs for values in (2)`,
    );
    await track(db, "jobs", { capture: "wal", polled: true });
    await track(db, "todos", { polled: true });
    const isAssigned = (statement: string): Promise<boolean> =>
      port.transaction(async (tx) => {
        await tx.query(`select set_config('bemi.context', '{"user_id": 9}', true)`);
        await tx.execute(statement);
        const [row] = await tx.query<{ xid: string | null }>(
          "select pg_current_xact_id_if_assigned()::text as xid",
        );
        return row?.xid !== null;
      });
    for (const table of ["jobs", "jobs_1", "todos"]) {
      expect(await isAssigned(`update ${table} set id = 5 where id = 7; delete from ${table} where id = 7`))
        .toBe(false);
    }
    expect(await isAssigned("update lists set title = '' where id = 7")).toBe(true);

    const say = (user: number): string => `select set_config('bemi.context', '{"user_id": ${user}}', true);`;
    await port.transaction((tx) =>
      tx.execute(`${say(1)} insert into jobs values (1, false, 1), (2, false, 1);
      insert into lists (title) values ('home'); insert into todos (task, list_id) values ('a', 1), ('b', 1);
      update jobs set done = true where id = 99;
      ${say(2)} update jobs set done = true where id = 1;
      savepoint s; ${say(3)} update todos set task = 'undone'; rollback to s;
      ${
        say(4)
      } update jobs set region = 2 where id = 2; update todos set task = 'c' where id = 1; delete from jobs_2;
      ${say(5)} delete from lists`)
    );
    await catchUp(database);
    expect(
      (await seen(port)).slice(5).map(({ operation, table, context }) => [operation, table, context.user_id]),
    ).toEqual([
      ["UPDATE", "jobs", 2],
      ["UPDATE", "jobs", 4],
      ["UPDATE", "todos", 4],
      ["DELETE", "jobs", 4],
      ["DELETE", "lists", 5],
      ["DELETE", "todos", 5],
      ["DELETE", "todos", 5],
    ]);
    await track(db, "todos", { polled: false });
    expect(await isAssigned("update todos set task = '' where id = 7")).toBe(true);
  });

  test("sessions that wrote before know at once that statements are masked and messages sealed", async () => {
    await using database = await open();
    const { db, port, url } = database;
    await install(db);
    await createSlot(db);
    await port.execute(
      "create table todos (id int primary key); create table people (id int, password text)",
    );
    await track(db, "todos", { capture: "wal" });
    const session = await database.connect({ max: 1 }).reserve();
    try {
      for (let id = 1; id <= 8; id++) await session.unsafe(`insert into todos values (${id})`);
      await track(db, "people", { capture: "wal", mask: ["password"] });
      await session.unsafe("insert into todos values (9)");
      await seal(db, { schema: SCHEMA });
      await session.unsafe("insert into todos values (10)");
    } finally {
      session.release();
    }
    await runWorker({ source: url, once: true }).finished;
    const contexts = (await seen(port)).map(({ context }) => context as { SQL?: string; db?: object });
    expect(contexts.map(({ SQL }) => SQL !== undefined)).toEqual([...Array(8).fill(true), false, false]);
    expect(contexts.map(({ db: facts }) => facts)).toEqual(
      Array(10).fill(expect.objectContaining({ user: "postgres" })),
    );
  });

  test("masked columns are nowhere, ignored ones make no change", async () => {
    await using database = await open();
    await todos(database);
    await database.port.execute(
      "create table people (id int primary key, name text, password text, seen_at int)",
    );
    await track(database.db, "people", { capture: "wal", mask: ["password"], ignore: ["seen_at"] });
    await database.port.execute("insert into people values (1, 'Ann', 's3cret', 1)");
    await database.port.execute("update people set seen_at = 2");
    await database.port.execute("update people set password = 's3cret2'");
    await database.port.execute("alter table people rename password to secret");
    await database.port.execute("update people set name = 'Bea', secret = 's3cret3'");
    await catchUp(database);
    const changes = await seen(database.port);
    expect(changes.map((c) => [c.operation, c.after.name])).toEqual([["CREATE", "Ann"], ["UPDATE", "Ann"], [
      "UPDATE",
      "Bea",
    ]]);
    expect(JSON.stringify(changes)).not.toMatch(/s3cret/);
  });

  test("a row is read by what its types were when it was written, whatever they are called since", async () => {
    await using database = await open();
    await todos(database);
    await database.port.execute(`
      create type spot as (x int, y text);
      create domain place as spot;
      create table base (x int);
      create table pins (id int primary key, at spot, ats spot[], place place, base base, bases base[])`);
    await track(database.db, "pins", { capture: "wal" });
    const insert = (id: number): Promise<void> =>
      database.port.execute(
        `insert into pins values (${id}, row(1, 'a'), array[row(2, 'b')::spot], row(3, 'c'), row(4), array[row(5)::base])`,
      );
    const row = (id: number, names: { x: string; base: string }): object => ({
      ...{ id, at: { [names.x]: 1, y: "a" }, ats: [{ [names.x]: 2, y: "b" }] },
      ...{ place: { [names.x]: 3, y: "c" }, base: { [names.base]: 4 }, bases: [{ [names.base]: 5 }] },
    });
    await insert(1);
    await database.port.execute("alter type spot rename attribute x to west");
    await insert(2);
    await database.port.execute("alter table base rename x to low");
    await insert(3);
    await catchUp(database);
    expect((await seen(database.port)).map((change) => change.after)).toEqual([
      row(1, { x: "x", base: "x" }),
      row(2, { x: "west", base: "x" }),
      row(3, { x: "west", base: "low" }),
    ]);
  });

  test("a change that the log cannot hold is set aside, and the others go on", async () => {
    await using database = await open();
    await todos(database);
    await database.port.execute("create table docs (id int primary key, body json)");
    await track(database.db, "docs", { capture: "wal" });
    await database.port.execute(
      `insert into docs values (1, '{"a": "\\u0000"}'), (2, '{"a": 1}'), (3, '"\\ud800"')`,
    );
    await database.port.execute(`insert into docs values (4, '1e400000')`);
    // Deeper than the worker's sessions go.
    await database.port.execute(
      `set max_stack_depth = '6MB'; insert into docs select 5, (repeat('[', 30000) || repeat(']', 30000))::json;
      reset max_stack_depth`,
    );
    await database.port.execute("insert into todos (task) values ('goes on')");
    await catchUp(database);
    expect((await seen(database.port)).map((c) => [c.table, c.key])).toEqual([["docs", "2"], ["todos", "1"]]);
    const aside = await database.port.query<{ sqlstate: string; key: string }>(
      `select sqlstate, substring(change from '"primary_key":"(\\d+)"') as key from ${BEMI}.set_aside order by 2`,
    );
    expect(aside).toEqual([{ key: "1", sqlstate: "22P05" }, { key: "3", sqlstate: "22P02" }, {
      key: "4",
      sqlstate: "22003",
    }, { key: "5", sqlstate: "54001" }]);
    await database.port.execute(
      `update ${BEMI}.set_aside set change = replace(change, '"a": "\\u0000"', '"a": "mended"')`,
    );
    expect(await database.port.query(`select ${BEMI}.retry_set_aside()::int as count`)).toEqual([{
      count: 1,
    }]);
    expect((await seen(database.port)).map((c) => c.key).sort()).toEqual(["1", "1", "2"]);
  });

  test("a LATIN1 database keeps its characters, in rows and in contexts", async () => {
    await using database = await open({ encoding: "LATIN1" });
    await todos(database);
    await database.port.transaction(async (tx) => {
      await tx.query("select set_config('bemi.context', $1, true)", ['{"who": "Jörg"}']);
      await tx.execute("insert into todos (task) values ('Müsli')");
    });
    await catchUp(database);
    const [change] = await seen(database.port);
    expect([change?.after.task, change?.context.who, change?.context.SQL]).toEqual([
      "Müsli",
      "Jörg",
      "insert into todos (task) values ('Müsli')",
    ]);
  });

  test("the slot advances while only untracked tables are written", async () => {
    await using database = await open();
    await todos(database);
    await database.port.execute(
      "create table noise as select repeat('x', 100) from generate_series(1, 5000)",
    );
    // Other tests write to the same server: what counts is the WAL up to here.
    const [here] = await database.port.query<{ lsn: string }>(
      "select pg_current_wal_flush_lsn()::text as lsn",
    );
    await catchUp(database);
    const [slot] = await database.port.query<{ advanced: boolean }>(
      `select confirmed_flush_lsn >= $1::text::pg_lsn as advanced from pg_replication_slots
      where database = current_database()`,
      [here?.lsn ?? ""],
    );
    expect(slot?.advanced).toBe(true);
  });

  test("the worker makes partitions ahead", async () => {
    await using database = await open();
    await todos(database);
    const partitions = async (): Promise<number> =>
      (await database.port.query(`select from pg_inherits where inhparent = '${BEMI}.changes'::regclass`))
        .length;
    const before = await partitions();
    await database.port.execute(`update ${BEMI}.settings set partitions_ahead = 6`);
    await catchUp(database);
    expect(await partitions()).toBe(before + 3);
  });

  test("the log may be in another database, and two workers write nothing twice", async () => {
    await using database = await open();
    await using audit = await open();
    await todos(database);
    await install(audit.db);
    const start = () => runWorker({ source: database.url, destination: audit.url, pollInterval: 50 });
    await using first = start();
    await using second = start();
    for (let i = 0; i < 30; i++) await database.port.execute(`insert into todos (task) values ('${i}')`);
    await expect.poll(async () => (await seen(audit.port)).length, { timeout: 20_000 }).toBe(30);
    await first.stop();
    await database.port.execute("insert into todos (task) values ('30')");
    await expect.poll(async () => (await seen(audit.port)).length, { timeout: 20_000 }).toBe(31);
    await second.stop();
    expect((await seen(audit.port)).map((c) => c.after.task)).toEqual(
      Array.from({ length: 31 }, (_, i) => String(i)),
    );
    expect(await seen(database.port)).toEqual([]);
  });

  test("capture can change from triggers to the WAL and back, and identities are given back", async () => {
    await using database = await open();
    await todos(database, []);
    const identity = async (): Promise<unknown> =>
      (await database.port.query<{ i: string }>(
        "select relreplident::text as i from pg_class where relname = 'todos'",
      ))[0]?.i;
    await database.port.execute("alter table todos replica identity nothing");
    await track(database.db, "todos");
    await database.port.execute("insert into todos (task) values ('trigger')");
    await track(database.db, "todos", { capture: "wal" });
    expect(await identity()).toBe("f");
    await database.port.execute("insert into todos (task) values ('wal')");
    await catchUp(database);
    await track(database.db, "todos", { capture: "trigger" });
    expect(await identity()).toBe("n");
    await database.port.execute("insert into todos (task) values ('trigger again')");
    await catchUp(database);
    expect((await seen(database.port)).map((c) => c.after.task).sort()).toEqual([
      "trigger",
      "trigger again",
      "wal",
    ]);
    await track(database.db, "todos", { capture: "wal" });
    await untrack(database.db, "todos");
    expect(await identity()).toBe("n");
    await maintain(database.db);
    await uninstall(database.db);
    expect(await database.port.query("select from pg_replication_slots where database = current_database()"))
      .toEqual([]);
    expect(await database.port.query("select from pg_publication")).toEqual([]);
  });

  test("an unlogged child of a logged table has the context in which the statement on its parent began", async () => {
    await using database = await open();
    const { port } = database;
    await install(database.db);
    await port.execute(`update ${BEMI}.settings set track_all = true, capture = 'wal'`);
    await createSlot(database.db);
    await port.execute(`create table lists (id int); create unlogged table fleeting () inherits (lists);
      create function tell() returns trigger language plpgsql as $$ begin
        perform set_config('bemi.context', '{"by":"trigger"}', true); return null; end $$;
      create trigger tell after update on fleeting for each row execute function tell();
      insert into fleeting values (1), (2)`);
    const update = async (): Promise<void> =>
      await port.transaction(async (tx) => {
        await tx.query("select set_config('bemi.context', $1, true)", ['{"by":"client"}']);
        await tx.execute("update lists set id = id + 10");
      });
    const own = async (): Promise<unknown> =>
      await port.query(
        `select relation::text from ${BEMI}.own_triggers where name like '%begin' order by 1`,
      );
    await update();
    expect((await seen(port)).filter((c) => c.operation === "UPDATE").map((c) => [c.table, c.context.by]))
      .toEqual([["fleeting", "client"], ["fleeting", "client"]]);
    expect(await own()).toEqual([{ relation: "fleeting" }, { relation: "lists" }]);
    await untrack(database.db, "fleeting");
    expect(await own()).toEqual([]);
    await track(database.db, "fleeting", { capture: "trigger" });
    expect(await own()).toEqual([{ relation: "fleeting" }, { relation: "lists" }]);
    await port.execute("drop table fleeting");
    expect(await own()).toEqual([]);
  });
});

// One workload, captured by triggers and from the WAL. Between keys the order is free; each key's is not.
const WORKLOAD: readonly string[] = [
  "insert into lists values (1, 'one'), (2, 'two'), (3, 'three')",
  "insert into todos (id, task, list_id) select i, 'task ' || i, 1 + i % 3 from generate_series(1, 12) i",
  "insert into todos (id, task) values (1, 'again'), (20, 'new') on conflict (id) do update set task = excluded.task",
  "update todos set task = task where id < 5",
  "update todos set id = id + 100 where id > 10",
  "with gone as (delete from todos where id = 2 returning *) insert into todos select id + 200, task, true, list_id from gone",
  `merge into todos t using (values (3, 'merged'), (300, 'made')) s (id, task) on t.id = s.id
    when matched then update set task = s.task when not matched then insert (id, task) values (s.id, s.task)`,
  "delete from lists where id = 2",
  "insert into parts values (1, 1, 'a'), (2, 1, 'b'), (3, 2, 'c')",
  "update parts set k = 2 where id <= 2",
  "update parts_2 set v = 'leaf' where id = 3",
  "delete from parts_2 where id = 1",
  "truncate parts_1",
  "truncate parts_2; truncate parts_3",
  "truncate parts_3_1, parts_1",
  "truncate parts_1; truncate parts",
  "truncate parts_3, parts, parts_1",
  "insert into audited values (1, 'x'), (2, 'y')",
  "update audited set v = v || '!'",
  "insert into keyless values (1, 'a'), (1, 'a')",
  "delete from keyless where ctid = (select min(ctid) from keyless)",
  "insert into base values (1, 'base'); insert into child values (2, 'child', 'more')",
  "update base set v = upper(v)",
  'insert into "Odd ""Name""" values (1, 2, 3)',
  'update "Odd ""Name""" set "new" = 9',
  "truncate lists cascade",
];

const TABLES = `${TODOS}
  create table parts (id int, k int, v text, primary key (id, k)) partition by list (k);
  create table parts_1 partition of parts for values in (1);
  create table parts_2 (v text, k int not null, id int not null, primary key (id, k));
  alter table parts attach partition parts_2 for values in (2);
  create table parts_3 partition of parts for values in (3) partition by list (id);
  create table parts_3_1 partition of parts_3 default;
  create table audited (id int primary key, v text);
  create function touch() returns trigger language plpgsql as $$ begin
    if pg_trigger_depth() = 1 then update audited set v = v || '+' where id = new.id; end if; return null; end $$;
  create trigger touch after insert on audited for each row execute function touch();
  create table keyless (a int, b text);
  create table base (id int primary key, v text);
  create table child (extra text) inherits (base);
  create table "Odd ""Name""" (x int, "new" int, "Old N" int primary key);
`;

onEachServer("one workload through both captures", (open) => {
  test("gives the same changes, each key's in the same order, with the same contexts", async () => {
    const found: Record<string, string[]>[] = [];
    for (const capture of ["trigger", "wal"] as const) {
      await using database = await open();
      await install(database.db);
      if (capture === "wal") await createSlot(database.db);
      await database.port.execute(TABLES);
      for (const table of ["lists", "todos", "parts", "audited", "keyless", "base", '"Odd ""Name"""']) {
        await track(database.db, table, { capture });
      }
      for (const [i, statement] of WORKLOAD.entries()) {
        await database.port.transaction(async (tx) => {
          await tx.execute("set local timezone = 'UTC'");
          await tx.query("select set_config('bemi.context', $1, true)", [JSON.stringify({ step: i })]);
          await tx.execute(statement);
        });
      }
      if (capture === "wal") await catchUp(database);
      const histories: Record<string, string[]> = {};
      for (const change of await seen(database.port)) {
        (histories[`${change.table} ${keyInHistory(change)}`] ??= []).push(JSON.stringify([
          change.operation,
          change.former,
          sorted(change.before),
          sorted(change.after),
          change.context.step,
        ]));
      }
      found.push(histories);
    }
    expect(found[1]).toEqual(found[0]);
    expect(Object.values(found[0] ?? {}).flat().length).toBeGreaterThan(50);
  });
});

const keyInHistory = (change: Seen): string =>
  change.key ?? (change.operation === "TRUNCATE" ? "all" : "none");

const sorted = (row: Record<string, unknown>): unknown =>
  Object.entries(row).sort(([a], [b]) => a < b ? -1 : 1);
