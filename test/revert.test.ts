import type { PGlite } from "@electric-sql/pglite";
import postgres from "postgres";
import { expect, test } from "vitest";
import { withContext } from "../mod.ts";
import { withBemi as withBemiPglite } from "../src/adapters/pglite.ts";
import { withBemi } from "../src/adapters/postgres.ts";
import { planRevert, revert, revertScript } from "../src/history/mod.ts";
import { BEMI, createSlot, install, runWorker, SCHEMA, track } from "./support/installation.ts";
import { onEachServer, onPglite, type TestDatabase } from "./support/databases.ts";
import { clock } from "./support/moments.ts";
import { onEachCapture, reverting } from "./support/reverting.ts";
import { seen, TODOS } from "./support/todos.ts";

onEachCapture("reverting", (open) => {
  test("everything that a request did, and then the revert itself", async () => {
    await using db = await open();
    const { port } = db.database;
    await db.track(TODOS, ["todos", "lists"]);
    await db.as(
      { request: 1 },
      `insert into lists (title) values ('home'), ('work');
      insert into todos (task, list_id) values ('Sleep', 1), ('Eat', 1), ('Repeat', 2)`,
    );
    const before = [await db.rows("lists"), await db.rows("todos")];
    await db.as(
      { request: 2 },
      `delete from lists where id = 1; update todos set is_completed = true;
      insert into todos (task, list_id) values ('Rest', 2)`,
    );
    const after = [await db.rows("lists"), await db.rows("todos")];
    const plan = await db.plan({ context: { request: 2 } });
    const logged = await seen(port);
    expect(plan).toMatchObject({ conflicts: [], changes: 5 });
    expect(
      plan.statements.map(({ operation, table, key, columns }) => [`${operation} ${table} ${key}`, columns]),
    ).toEqual([
      ["INSERT lists 1", { id: "1", title: '"home"' }],
      ["UPDATE todos 3", { is_completed: "false" }],
      ["DELETE todos 4", {}],
      ["INSERT todos 1", { id: "1", task: '"Sleep"', list_id: "1", is_completed: "false" }],
      ["INSERT todos 2", { id: "2", task: '"Eat"', list_id: "1", is_completed: "false" }],
    ]);
    const done = await withContext({ admin: "Ann" }, () => db.revert({ context: { request: 2 } }));
    expect([await db.rows("lists"), await db.rows("todos")]).toEqual(before);
    await db.plan({ context: { request: 2 } });
    const own = (await seen(port)).slice(logged.length);
    expect(own).toHaveLength(5);
    for (const { context } of own) {
      expect(context).toMatchObject({ admin: "Ann", reverts: { context: { request: 2 } } });
    }
    await db.revert({ transaction: done.transaction ?? "" });
    expect([await db.rows("lists"), await db.rows("todos")]).toEqual(after);
    expect(await db.plan({ context: { request: 2 } }, { onConflict: "skip" })).toMatchObject({
      conflicts: [],
    });
  });

  test("a row comes back to a key that a row like it is about to leave", async () => {
    await using db = await open();
    await db.track("create table pairs (a int, b text, note text, primary key (a, b) deferrable)", ["pairs"]);
    await db.execute("insert into pairs values (3, 'c', 'new')");
    const before = await db.rows("pairs");
    // The second row is as the first one was before.
    await db.as(
      { request: 1 },
      "update pairs set a = 4, note = 'moved'; insert into pairs values (3, 'c', 'new')",
    );
    const after = await db.rows("pairs");
    const undone = await db.revert({ context: { request: 1 } });
    expect(await db.rows("pairs")).toEqual(before);
    await db.revert({ transaction: undone.transaction ?? "" });
    expect(await db.rows("pairs")).toEqual(after);
  });

  test("a renamed column gets its value back under its new name, and one that took a dropped one's name does not", async () => {
    await using db = await open();
    await db.track("create table todos (id int primary key, task text, note text)", ["todos"]);
    await db.execute("insert into todos values (1, 'Sleep', 'long'), (2, 'Eat', 'well')");
    await db.as(
      { request: 1 },
      "update todos set task = 'Wake' where id = 1; delete from todos where id = 2",
    );
    await db.as({ request: 2 }, "update todos set note = 'short' where id = 1");
    await db.execute(
      "alter table todos rename column task to title; alter table todos drop column note; alter table todos add column note text",
    );
    const plan = await db.plan({ context: { request: 1 } }, { onConflict: "force" });
    expect(plan.statements.map(({ columns }) => columns)).toEqual(
      expect.arrayContaining([{ title: '"Sleep"' }, { id: "2", title: '"Eat"' }]),
    );
    await db.revert({ context: { request: 1 } }, { onConflict: "force" });
    expect(await db.rows("todos")).toEqual([
      '{"id": 1, "note": null, "title": "Sleep"}',
      '{"id": 2, "note": null, "title": "Eat"}',
    ]);
    expect((await db.plan({ context: { request: 2 } })).conflicts).toEqual(
      expect.arrayContaining([expect.objectContaining({ kind: "column_gone", columns: ["note (dropped)"] })]),
    );
  });

  test("what a dropped table's columns were renamed to says nothing of the next one of its name", async () => {
    await using db = await open();
    await db.track("create table todos (id int primary key, task text)", ["todos"]);
    await db.execute(
      "insert into todos values (1, 'a'); alter table todos rename task to title; drop table todos",
    );
    await db.track("create table todos (id int primary key, task text, title text)", ["todos"]);
    await db.execute("insert into todos values (1, 'b', 'c')");
    await db.as({ request: 1 }, "update todos set task = 'd'");
    expect(await db.revert({ context: { request: 1 } })).toMatchObject({ conflicts: [] });
    expect(await db.rows("todos")).toEqual(['{"id": 1, "task": "b", "title": "c"}']);
  });

  test("a row that others deleted and brought back goes too, generated columns and all", async () => {
    await using db = await open();
    await db.track(
      "create table todos (id int primary key, n int, twice int generated always as (n * 2) stored)",
      ["todos"],
    );
    await db.as({ request: 1 }, "insert into todos values (1, 1), (2, 2)");
    await db.as({ request: 2 }, "delete from todos where id = 1");
    await db.revert({ context: { request: 2 } });
    expect(await db.revert({ context: { request: 1 } })).toMatchObject({ conflicts: [] });
    expect(await db.rows("todos")).toEqual([]);
  });

  test("a change, a row to a time, a table to a time", async () => {
    await using db = await open();
    const { port } = db.database;
    await db.track("create table todos (id int primary key, task text, n numeric)", ["todos"]);
    const moment = async (): Promise<string> => {
      await db.plan({ context: { nothing: true } });
      return await clock(port);
    };
    await db.as({}, "insert into todos values (1, 'a', 1), (2, 'b', 2)");
    const first = await moment();
    const state = await db.rows("todos");
    await db.as({}, "update todos set id = 3, task = 'c' where id = 1");
    const second = await moment();
    await db.as(
      {},
      "update todos set task = 'd', n = 9007199254740993.10; insert into todos values (4, 'e', 0)",
    );
    await db.as({}, "delete from todos where id = 3");
    await db.revert({ table: "todos", key: "3", to: second });
    expect(await db.rows("todos")).toContain('{"n": 1, "id": 3, "task": "c"}');
    await db.revert({ table: "public.todos", key: "3", to: first });
    expect(await db.rows("todos")).toContain('{"n": 1, "id": 1, "task": "a"}');
    await db.revert({ table: "todos", to: first });
    expect(await db.rows("todos")).toEqual(state);
    await db.plan({ context: { nothing: true } });
    const [insert] = await port.query<{ id: string }>(
      `select id from ${BEMI}.changes where primary_key = '2' and operation = 'CREATE'`,
    );
    await db.revert({ change: insert?.id ?? "" });
    expect(await db.rows("todos")).toEqual(['{"n": 1, "id": 1, "task": "a"}']);
    expect(await db.revert({ table: "todos", key: "1", to: new Date(Date.now() + 60_000) })).toMatchObject({
      statements: [],
      transaction: null,
    });
  });

  test("a row by a key of several columns, however its JSON is spelled", async () => {
    await using db = await open();
    await db.track("create table items (list int, name text, n int, primary key (list, name))", ["items"]);
    await db.as({}, "insert into items values (1, 'a', 1), (2, 'a', 2)");
    await db.plan({ context: { nothing: true } });
    const to = await clock(db.database.port);
    await db.as({}, "update items set n = 9");
    await db.revert({ table: "items", key: '[1,"a"]', to });
    expect(await db.rows("items")).toEqual([
      '{"n": 1, "list": 1, "name": "a"}',
      '{"n": 9, "list": 2, "name": "a"}',
    ]);
  });

  test("one row to a time, across a TRUNCATE, without the rows beside it", async () => {
    await using db = await open();
    await db.track("create table todos (id int primary key, task text)", ["todos"]);
    await db.as({}, "insert into todos values (1, 'a'), (2, 'b'), (3, 'c')");
    await db.plan({ context: { nothing: true } });
    const full = await clock(db.database.port);
    await db.as({}, "update todos set id = 7 where id = 1");
    await db.as({}, "truncate todos");
    await db.as({}, "insert into todos values (3, 'new')");
    await db.revert({ table: "todos", key: "1", to: full });
    expect(await db.rows("todos")).toEqual(['{"id": 1, "task": "a"}', '{"id": 3, "task": "new"}']);
    await db.revert({ table: "todos", key: "3", to: full });
    expect(await db.rows("todos")).toEqual(['{"id": 1, "task": "a"}', '{"id": 3, "task": "c"}']);
  });

  test("a table to a time is one table, by a name that the log knows and that it had then", async () => {
    await using db = await open();
    const { port } = db.database;
    await db.execute("create schema app");
    await db.track(
      "create table todos (id int primary key, task text); create table app.todos (id int primary key, task text)",
      ["todos", "app.todos"],
    );
    const start = await clock(port);
    await db.as({}, "insert into todos values (1, 'a'); insert into app.todos values (1, 'b')");
    for (const unit of [{ table: "todos", to: start }, { table: "todos", key: "1", to: start }]) {
      await expect(db.revert(unit)).rejects.toMatchObject({
        code: "usage",
        hint: "Say which: app.todos, public.todos.",
      });
    }
    await expect(db.revert({ table: "todo", to: start })).rejects.toMatchObject({ code: "table_missing" });
    await db.revert({ table: "app.todos", to: start });
    expect([await db.rows("todos"), await db.rows("app.todos")]).toEqual([['{"id": 1, "task": "a"}'], []]);
    await db.execute("alter table app.todos rename to tasks");
    await db.as({}, "insert into app.tasks values (2, 'c')");
    expect(await db.plan({ table: "tasks", to: start })).toMatchObject({
      conflicts: [{ kind: "table_gone", message: "app.tasks was called app.todos at that time" }],
    });
    const later = await clock(port);
    await db.as({}, "delete from app.tasks");
    await db.revert({ table: "tasks", to: later });
    expect(await db.rows("app.tasks")).toEqual(['{"id": 2, "task": "c"}']);
  });

  test("a table to a time is not another's, whose schema's name ends like its own", async () => {
    await using db = await open();
    await db.track(
      `create schema app; create table app.todos (id int primary key);
      create schema "my.app"; create table "my.app".todos (id int primary key)`,
      ["app.todos", '"my.app".todos'],
    );
    await db.as({}, 'insert into app.todos values (1); insert into "my.app".todos values (1)');
    await db.revert({ table: "my.app.todos", to: "2020-01-01" }, { onConflict: "force" });
    expect([await db.rows("app.todos"), await db.rows('"my.app".todos')]).toEqual([['{"id": 1}'], []]);
    await expect(db.plan({ table: "no.app.todos", to: "2020-01-01" })).rejects.toMatchObject({
      code: "table_missing",
    });
  });

  test("values come back exactly, generated and identity columns, partitions, and rows without a key", async () => {
    await using db = await open();
    await db.track(
      `create table odd ("The Id" bigint generated always as identity primary key, "a""b" numeric(30, 10), bytes bytea,
        doc jsonb, list text[], span tstzrange, at timestamptz, how interval, twice numeric generated always as ("a""b" * 2) stored);
      create table log (at date, note text) partition by range (at);
      create table log_1 partition of log for values from ('2026-01-01') to ('2026-07-01');
      create table log_2 partition of log for values from ('2026-07-01') to ('2027-01-01')`,
      ["odd", "log"],
    );
    await db.as(
      {},
      `insert into odd ("a""b", bytes, doc, list, span, at, how) values
      (12345678901234567890.0123456789, '\\x00ff5c27', '{"n": 12345678901234567890.10, "s": "\\u00e9''\\\\"}', '{a,"b c",null,""}', '[2026-01-01,)', '2026-01-01 00:00:00.123456+05', '1 mon -2 days'),
      (null, null, null, null, null, null, null);
      insert into log values ('2026-02-01', 'twice'), ('2026-02-01', 'twice'), ('2026-08-01', 'once')`,
    );
    const before = [await db.rows("odd"), await db.rows("log")];
    await db.as(
      { undo: true },
      `delete from odd where "The Id" = 1; update odd set list = '{x}', bytes = '\\xff' where "The Id" = 2;
      update log set at = '2026-09-01' where ctid = (select min(ctid) from log_1) and tableoid = 'log_1'::regclass;
      delete from log where note = 'once'; insert into log values ('2026-03-01', 'new')`,
    );
    const after = [await db.rows("odd"), await db.rows("log")];
    const unit = { context: { undo: true } };
    await db.execute(
      "set timezone = 'Asia/Tokyo'; set intervalstyle = 'iso_8601'; set bytea_output = 'escape'",
    );
    const done = await db.revert(unit);
    await db.execute("reset timezone; reset intervalstyle; reset bytea_output");
    expect([await db.rows("odd"), await db.rows("log")]).toEqual(before);
    await db.revert({ transaction: done.transaction ?? "" });
    expect([await db.rows("odd"), await db.rows("log")]).toEqual(after);
  });

  test("rows without a key that look alike, of which some are from before a column was added", async () => {
    await using db = await open();
    await db.track("create table loose (n int)", ["loose"]);
    await db.as({}, "insert into loose values (0)");
    await db.as({ undo: true }, "insert into loose values (1)");
    await db.plan({ context: { nothing: true } });
    await db.execute("alter table loose add b int");
    await db.as({ undo: true }, "insert into loose values (1, null), (1, 2)");
    await db.revert({ context: { undo: true } });
    expect(await db.rows("loose")).toEqual(['{"b": null, "n": 0}']);
  });

  test("triggers of the application fire: counters come out right, a trigger that insists has its way and is told", async () => {
    await using db = await open();
    await db.track(
      `create table lists (id int primary key, amount int not null default 0);
      create table todos (id int primary key, list_id int, task text, version int not null default 0);
      create function count_todos() returns trigger language plpgsql as $$ begin
        update lists set amount = amount + case tg_op when 'INSERT' then 1 else -1 end where id = coalesce(new.list_id, old.list_id);
        return null; end $$;
      create trigger count_todos after insert or delete on todos for each row execute function count_todos();
      create function touch() returns trigger language plpgsql as $$ begin new.version := old.version + 1; return new; end $$;
      create trigger touch before update on todos for each row execute function touch()`,
      ["lists", "todos"],
    );
    await db.as({}, "insert into lists values (1); insert into todos values (1, 1, 'a'), (2, 1, 'b')");
    await db.as(
      { undo: true },
      "insert into todos values (3, 1, 'c'); delete from todos where id = 1; delete from todos where id = 2; insert into todos values (4, 1, 'd')",
    );
    await db.as({ undo: 2 }, "update lists set amount = 7; insert into todos values (5, 1, 'e')");
    await db.revert({ context: { undo: 2 } });
    await db.revert({ context: { undo: true } });
    expect(await db.rows("lists")).toEqual(['{"id": 1, "amount": 2}']);
    await db.as({ undo: 3 }, "update todos set task = 'A' where id = 1");
    const done = await db.revert({ context: { undo: 3 } });
    expect(done.adjusted).toEqual([{ schema: "public", table: "todos", key: "1", columns: ["version"] }]);
    expect((await db.rows("todos"))[0]).toMatch(/"task": "a"/);
    await db.revert({ transaction: done.transaction ?? "" });
    expect((await db.rows("todos"))[0]).toMatch(/"task": "A"/);
  });

  test("as a script: the same, and it fails where a row is no longer as it was", async () => {
    await using db = await open();
    await db.track(`${TODOS}; create table loose (n int, t text)`, ["todos", "lists", "loose"]);
    await db.as(
      {},
      `insert into lists (title) values ('it''s \\ a "list"'); insert into todos (task, list_id) values ('Sleep', 1);
      insert into loose values (1, 'a'), (1, 'a')`,
    );
    const tables = (): Promise<string[][]> => Promise.all(["lists", "todos", "loose"].map(db.rows));
    const before = await tables();
    await db.as(
      { undo: true },
      `insert into todos (task) values ('Eat'); update lists set title = 'x'; delete from lists;
      update loose set t = 'b' where ctid = (select min(ctid) from loose)`,
    );
    const unit = { context: { undo: true } };
    const script = await revertScript(db.database.db, unit, { schema: SCHEMA });
    expect(script).toMatch(/^begin;\n[^]*commit;\n$/);
    const paste = pasting(db.database);
    await db.execute("update todos set task = 'Eat well'");
    await expect(paste(script)).rejects.toMatchObject({ code: "55000" });
    await paste("rollback; update todos set task = 'Eat'");
    await paste(`set standard_conforming_strings = off; ${script} set standard_conforming_strings = on`);
    expect(await tables()).toEqual(before);
    await db.plan(unit, { onConflict: "skip" });
    expect((await seen(db.database.port)).at(-1)?.context).toMatchObject({
      reverts: { context: { undo: true } },
    });
    await expect(revertScript(db.database.db, unit, { schema: SCHEMA, onConflict: "skip" })).resolves.not
      .toMatch(/update|insert|delete/);
  });

  test("says what it is not", async () => {
    await using db = await open();
    await db.track(TODOS, ["todos"]);
    for (
      const unit of [
        { change: "1" },
        { transaction: "x" },
        { context: {} },
        {},
        { transaction: { source: 1, commitLsn: "1" } },
        // What a caller left undefined must not become everything, or the whole table.
        { context: { request_id: undefined } },
        { context: { app: { request_id: undefined } } },
        { context: { request_id: () => 1 } },
        { table: "todos", key: undefined, to: new Date(0) },
        { table: "todos", to: undefined },
        { table: "todos", to: new Date("x") },
        { context: { request_id: 1 }, change: undefined },
        { context: { request_id: 1 }, transaction: undefined },
        undefined,
      ]
    ) {
      await expect(db.plan(unit as never)).rejects.toMatchObject({ code: "usage" });
    }
    await expect(db.plan({ transaction: 1 })).rejects.toMatchObject({ code: "not_found" });
    await expect(db.plan({ change: "019ab3c4-0000-7000-8000-000000000000" })).rejects.toMatchObject({
      code: "not_found",
    });
    await expect(db.plan({ context: { nobody: 1 } })).resolves.toMatchObject({
      statements: [],
      conflicts: [],
      changes: 0,
    });
  });
});

/** One session, for statements that steer the transaction themselves. */
function pasting({ db, url, connect }: TestDatabase): (sql: string) => Promise<unknown> {
  if (url === undefined) return (sql) => (db as PGlite).exec(sql);
  const session = connect({ max: 1 });
  return (sql) => session.unsafe(sql).simple();
}

onEachServer("reverting", (open) => {
  test("waits for who is writing the row, and then sees what he wrote; nobody's change is lost", async () => {
    await using db = await reverting(await open(), "trigger");
    await db.track("create table todos (id int primary key, n int, others int not null default 0)", [
      "todos",
    ]);
    await db.as({}, "insert into todos select i, 0 from generate_series(1, 20) i");
    await db.as({ undo: true }, "update todos set n = 1");
    const sql = db.database.connect({ max: 6 });
    let isOver = false;
    let written = 0;
    const writers = Array.from({ length: 4 }, async (_, w) => {
      for (let i = 0; !isOver; i++) {
        // Both without a context and each a transaction: some come before the revert has its locks, some wait for it.
        await sql`update todos set others = others + 1 where id = ${(i * 7 + w * 3) % 20 + 1}`;
        written++;
      }
    });
    await expect.poll(() => written, { timeout: 30_000 }).toBeGreaterThan(0); // so the first revert meets a conflict
    let refused = 0;
    for (let i = 0; i < 8; i++) {
      await db.revert({ context: { undo: true } }, {
        onConflict: i < 4 ? "refuse" : i < 6 ? "skip" : "force",
      })
        .catch((error: { code?: string }) => {
          if (error.code !== "conflict") throw error;
          refused++;
        });
    }
    isOver = true;
    await Promise.all(writers);
    const [sums] = await sql<
      { n: string; others: string }[]
    >`select sum(n) as n, sum(others) as others from todos`;
    expect(sums).toEqual({ n: "0", others: String(written) });
    expect(refused).toBeGreaterThan(0);
  });

  test("of two that revert the same, one is refused", async () => {
    await using db = await reverting(await open(), "trigger");
    await db.track("create table todos (id int primary key, task text)", ["todos"]);
    await db.as({}, "insert into todos select i, 'a' from generate_series(1, 50) i");
    await db.as({ undo: true }, "update todos set task = 'b' where id > 1; delete from todos where id = 1");
    const outcomes = await Promise.allSettled([1, 2].map(() => db.revert({ context: { undo: true } })));
    const failed = outcomes.filter(({ status }) => status === "rejected");
    for (const outcome of failed) expect(outcome).toMatchObject({ reason: { code: "conflict" } });
    expect(failed.length).toBeLessThan(2);
    expect((await db.rows("todos")).filter((row) => row.includes('"a"'))).toHaveLength(50);
  });

  test("through withBemi, and within a transaction of the caller's, whose own context goes on", async () => {
    await using db = await reverting(await open(), "trigger");
    const { database } = db;
    await db.track("create table todos (id int primary key, task text)", ["todos"]);
    await db.as({ undo: true }, "insert into todos values (1, 'a'), (2, 'b')");
    const sql = withBemi(postgres(database.url ?? "", { max: 2, onnotice() {} }));
    await withContext({ user: 1 }, () =>
      sql.begin(async (tx) => {
        await tx`insert into todos values (3, 'c')`;
        await revert(tx, { context: { undo: true } }, { schema: SCHEMA });
        await tx`insert into todos values (4, 'd')`;
      }));
    await sql.end();
    expect(
      (await seen(database.port)).slice(2).map((
        { operation, key, context },
      ) => [operation, key, context.user, context.reverts]),
    )
      .toEqual([
        ["CREATE", "3", 1, undefined],
        ["DELETE", "1", 1, { context: { undo: true } }],
        ["DELETE", "2", 1, { context: { undo: true } }],
        ["CREATE", "4", 1, undefined],
      ]);
  });

  test("a row whose table was captured in one way, then in the other, and back", async () => {
    await using db = await reverting(await open(), "wal");
    const { port } = db.database;
    await db.track("create table todos (id int primary key, task text)", ["todos"]);
    await db.as({}, "insert into todos values (1, 'a')");
    await db.plan({ context: { nothing: true } });
    const [start] = await port.query<{ at: string }>("select clock_timestamp()::text as at");
    for (const [i, capture] of (["wal", "trigger", "wal", "trigger"] as const).entries()) {
      await db.plan({ context: { nothing: true } });
      await track(db.database.db, "todos", { capture });
      await db.as({}, `update todos set id = ${i + 2}, task = '${capture} ${i}'`);
    }
    await db.execute("create table other (id int primary key)");
    await track(db.database.db, "other", { capture: "wal" });
    const unit = { table: "todos", key: "5", to: start?.at ?? "" };
    expect(await db.plan(unit)).toMatchObject({ changes: 4, conflicts: [] });
    await db.revert(unit);
    expect(await db.rows("todos")).toEqual(['{"id": 1, "task": "a"}']);
  });

  test("refuses while the log lags behind the WAL, and goes on when a polling worker has caught up", async () => {
    await using database = await open();
    await install(database.db);
    await createSlot(database.db);
    await database.port.execute("create table todos (id int primary key, task text)");
    await track(database.db, "todos", { capture: "wal" });
    await database.port.execute("insert into todos values (1, 'a')");
    const unit = { table: "todos", to: "2020-01-01" };
    await expect(planRevert(database.db, unit, { schema: SCHEMA, wait: 50 })).rejects.toMatchObject({
      code: "log_behind",
    });
    await using _ = runWorker({ source: database.url, mode: "poll" });
    await revert(database.db, unit, { schema: SCHEMA, wait: 60_000, onConflict: "force" });
    expect(await database.port.query("select from todos")).toEqual([]);
  });
});

onPglite("reverting on a wrapped PGlite", (open) => {
  test("runs under the caller's context", async () => {
    await using database = await open();
    const db = withBemiPglite(database.db);
    await install(db);
    await db.exec("create table todos (id int primary key)");
    await track(db, "todos");
    await withContext({ user: 7 }, () => db.query("insert into todos values (1)"));
    await withContext({ admin: 1 }, () => revert(db, { context: { user: 7 } }, { schema: SCHEMA }));
    expect((await seen(database.port)).at(-1)).toMatchObject({
      operation: "DELETE",
      context: { admin: 1, reverts: { context: { user: 7 } } },
    });
  });
});
