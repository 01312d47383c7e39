import { expect, test } from "vitest";
import { BEMI, install, OWN_NAME, track, tracking, untrack } from "./support/installation.ts";
import { onEachDatabase, onEachServer, type TestDatabase } from "./support/databases.ts";
import { seen, story, TODOS } from "./support/todos.ts";

function inTransaction(database: TestDatabase, statements: string): Promise<void> {
  return database.port.transaction((tx) => tx.execute(statements));
}

onEachDatabase("trigger capture", (open, server) => {
  test("records before and after of INSERT, UPDATE, DELETE and TRUNCATE, with the context in force", async () => {
    await using database = await open();
    await tracking(database, TODOS, "todos");
    await database.port.execute("insert into todos (task) values ('Sleep'), ('Eat')");
    await database.port.execute("update todos set is_completed = true where id = 1");
    await database.port.execute("delete from todos where id = 2");
    await database.port.execute("truncate todos");
    const sleep = { id: 1, task: "Sleep", is_completed: false, list_id: null };
    const eat = { id: 2, task: "Eat", is_completed: false, list_id: null };
    expect((await seen(database.port)).map(({ context: _, ...change }) => change)).toEqual([
      { operation: "CREATE", table: "todos", key: "1", former: null, before: {}, after: sleep },
      { operation: "CREATE", table: "todos", key: "2", former: null, before: {}, after: eat },
      {
        operation: "UPDATE",
        table: "todos",
        key: "1",
        former: null,
        before: sleep,
        after: { ...sleep, is_completed: true },
      },
      { operation: "DELETE", table: "todos", key: "2", former: null, before: eat, after: {} },
      { operation: "TRUNCATE", table: "todos", key: null, former: null, before: {}, after: {} },
    ]);
  });

  test("one row and many are recorded the same, also right after the server started", async () => {
    await using database = await open();
    await tracking(database, "create table todos (id int primary key, task text)", "todos");
    // As it is behind a restart: what was known is of another start.
    await database.port.execute(`update ${BEMI}.tracked_tables set source_known_since = '2000-01-01'`);
    for (const rows of [1, 2, 1]) {
      await database.port.execute(`insert into todos select n, 'Sleep' from generate_series(1, ${rows}) n`);
      await database.port.execute("update todos set id = id + 10, task = 'Eat'");
      await database.port.execute("update todos set task = 'Eat'");
      await database.port.execute("delete from todos");
    }
    const changes = await seen(database.port);
    const first = changes.filter(({ key, former }) => key === "1" || key === "11" || former === "1");
    expect(first.map(({ operation, key, former }) => [operation, key, former])).toEqual(
      [1, 2, 3].flatMap(() => [["CREATE", "1", null], ["UPDATE", "11", "1"], ["DELETE", "11", null]]),
    );
    expect(changes).toHaveLength(3 * 4);
    const of = (operation: string): unknown[] =>
      first.filter((change) => change.operation === operation)
        .map(({ before, after, context }) => ({
          before,
          after,
          statement: context.SQL,
          keys: Object.keys(context),
        }));
    for (const operation of ["UPDATE", "DELETE"]) {
      const [one, many, again] = of(operation);
      expect(one).toEqual(many);
      expect(again).toEqual(many);
    }
    const sources = await database.port.query(`select distinct source_id from ${BEMI}.changes`);
    expect(sources).toHaveLength(1);
  });

  test("nothing is recorded for an update that changes nothing, or only ignored columns", async () => {
    await using database = await open();
    await install(database.db);
    await database.port.execute(
      "create table todos (id int primary key, task text, tags text[], updated_at timestamptz)",
    );
    await track(database.db, "todos", { ignore: ["updated_at"] });
    await database.port.execute(`
      insert into todos values (1, 'Sleep', array['a', 'a'], now());
      update todos set task = task;
      update todos set updated_at = now() + interval '1 day';
      update todos set tags = array['a'];
      update todos set id = 1 where false`);
    expect(await story(database.port)).toEqual(["CREATE todos 1", "UPDATE todos 1"]);
  });

  test("masked columns are in no copy, nor in any statement's text, also after a rename", async () => {
    await using database = await open();
    await install(database.db);
    await database.port.execute(
      "create table people (id int primary key, name text, secret text); create table todos (id int primary key)",
    );
    await track(database.db, "people", { mask: ["secret"] });
    await track(database.db, "todos");
    await database.port.execute("insert into people values (1, 'Ann', 'hunter2')");
    await database.port.execute("update people set secret = 'hunter3'");
    await database.port.execute("update people set name = 'Bea' where secret = 'hunter3'");
    await database.port.execute("alter table people rename secret to password");
    await database.port.execute("delete from people where password = 'hunter3'");
    await database.port.execute("insert into todos select 1 where 'hunter3' <> ''");
    const changes = await seen(database.port);
    expect(JSON.stringify(changes)).not.toMatch(/hunter/);
    expect(changes.map((c) => [c.operation, c.before, c.after])).toEqual([
      ["CREATE", {}, { id: 1, name: "Ann" }],
      ["UPDATE", { id: 1, name: "Ann" }, { id: 1, name: "Ann" }],
      ["UPDATE", { id: 1, name: "Ann" }, { id: 1, name: "Bea" }],
      ["DELETE", { id: 1, name: "Bea" }, {}],
      ["CREATE", {}, { id: 1 }],
    ]);
  });

  test("keys: composite, changed, shifted, missing", async () => {
    await using database = await open();
    await tracking(
      database,
      `
      create table pairs (b text, a int, note text, primary key (a, b));
      create table keyless (n int);
      create table steps (id int primary key deferrable)`,
      "pairs",
      "keyless",
      "steps",
    );
    await database.port.execute(`
      insert into pairs values ('x', 1, '');
      update pairs set a = 2;
      insert into keyless values (1);
      insert into steps values (1), (2), (3);
      update steps set id = id + 1;
      update steps set id = id where id = 2`);
    expect((await seen(database.port)).map((c) => [c.operation, c.former, c.key])).toEqual([
      ["CREATE", null, '[1, "x"]'],
      ["UPDATE", '[1, "x"]', '[2, "x"]'],
      ["CREATE", null, null],
      ["CREATE", null, "1"],
      ["CREATE", null, "2"],
      ["CREATE", null, "3"],
      ["UPDATE", "1", "2"],
      ["UPDATE", "2", "3"],
      ["UPDATE", "3", "4"],
    ]);
  });

  test("upsert, MERGE, writable CTEs and COPY", async () => {
    await using database = await open();
    await tracking(
      database,
      "create table todos (id int primary key, task text); create table archive (id int primary key, task text)",
      "todos",
      "archive",
    );
    await database.port.execute("insert into todos values (1, 'a'), (2, 'b')");
    await database.port.execute(
      "insert into todos values (2, 'B'), (3, 'c') on conflict (id) do update set task = excluded.task",
    );
    await database.port.execute("insert into todos values (1, 'no') on conflict do nothing");
    await database.port.execute(
      `merge into todos t using (values (1, 'x'), (2, null), (9, 'new')) as s (id, task) on t.id = s.id
      when matched and s.task is null then delete when matched then update set task = s.task when not matched then insert values (s.id, s.task)`,
    );
    await database.port.execute(
      "with gone as (delete from todos where id = 3 returning *) insert into archive select * from gone",
    );
    await database.port.execute(
      "with gone as (delete from todos where id = 9 returning *) insert into todos select id, 'again' from gone",
    );
    const all = await story(database.port);
    expect(all.slice(0, 2)).toEqual(["CREATE todos 1", "CREATE todos 2"]);
    expect(all.slice(2, 4).sort()).toEqual(["CREATE todos 3", "UPDATE todos 2"]);
    expect(all.slice(4, 7).sort()).toEqual(["CREATE todos 9", "DELETE todos 2", "UPDATE todos 1"]);
    expect(all.slice(7, 9).sort()).toEqual(["CREATE archive 3", "DELETE todos 3"]);
    expect(all.slice(9)).toEqual(["DELETE todos 9", "CREATE todos 9"]);
  });

  test("cascades are recorded, with the context and the statement that caused them", async () => {
    await using database = await open();
    await tracking(database, TODOS, "lists", "todos");
    await database.port.execute(`
      insert into lists (title) values ('home'); insert into todos (task, list_id) values ('Sleep', 1), ('Eat', 1)`);
    await database.port.transaction(async (tx) => {
      await tx.query("select set_config('bemi.context', '{\"user_id\": 7}', true)");
      await tx.query("delete from lists");
    });
    const changes = (await seen(database.port)).slice(3);
    expect(changes.map((c) => `${c.operation} ${c.table} ${c.key}`).sort()).toEqual([
      "DELETE lists 1",
      "DELETE todos 1",
      "DELETE todos 2",
    ]);
    for (const change of changes) {
      expect(change.context).toMatchObject({ user_id: 7 });
      expect(change.context.SQL).toBe("delete from lists");
    }
  });

  test("partitions: through the root, straight into a leaf, moved, truncated, added later", async () => {
    await using database = await open();
    await tracking(
      database,
      `
      create table todos (region text, id int, task text, primary key (region, id)) partition by list (region);
      create table todos_eu partition of todos for values in ('eu');
      create table todos_us (task text, id int not null, region text not null, primary key (region, id));
      alter table todos attach partition todos_us for values in ('us')`,
      "todos",
    );
    await database.port.execute(`
      insert into todos values ('eu', 1, 'a'), ('us', 2, 'b');
      insert into todos_us (id, region, task) values (3, 'us', 'c');
      update todos_us set task = 'C' where id = 3;
      update todos set region = 'us' where id = 1;
      create table todos_asia partition of todos for values in ('asia')`);
    if (server !== "PGlite") await database.port.query(`select ${BEMI}.reconcile()`);
    await database.port.execute(`
      insert into todos_asia values ('asia', 4, 'd');
      delete from todos where id = 4;
      truncate todos_eu`);
    expect((await seen(database.port)).map((c) => [c.operation, c.table, c.former, c.key])).toEqual([
      ["CREATE", "todos", null, '["eu", 1]'],
      ["CREATE", "todos", null, '["us", 2]'],
      ["CREATE", "todos", null, '["us", 3]'],
      ["UPDATE", "todos", null, '["us", 3]'],
      ["UPDATE", "todos", '["eu", 1]', '["us", 1]'],
      ["CREATE", "todos", null, '["asia", 4]'],
      ["DELETE", "todos", null, '["asia", 4]'],
      ["TRUNCATE", "todos", null, null],
    ]);
  });

  test.each(["statement", "row"])("hostile names of tables and columns, captured by %s", async (level) => {
    await using database = await open();
    const table = `"Ta'b""le; drop table x --"`;
    await install(database.db);
    await database.port.execute(`
      create schema "We ird";
      create table "We ird".${table} ("Id" int primary key, x int, n int, "new" text, "old" text, bemi_new int, bemi_row int,
        bemi_after int, bemi_before int, v_frame int, tg_op text, "table" text, "$1" text, "ünï" text)`);
    if (level === "row") {
      await database.port.execute(`
        create function nothing() returns trigger language plpgsql as 'begin return null; end';
        create trigger " a" after insert on "We ird".${table} for each row execute function nothing()`);
    }
    await track(database.db, `"We ird".${table}`);
    await database.port.execute(`
      insert into "We ird".${table} ("Id", x, n, "new", "old", v_frame, tg_op, "table", "$1", "ünï") values (1, 2, 3, 'a', 'b', 5, 'c', 'd', 'e', 'f');
      update "We ird".${table} set x = 9; delete from "We ird".${table}`);
    const changes = await seen(database.port);
    expect(changes.map((c) => [c.operation, c.table, c.key])).toEqual([
      ["CREATE", `Ta'b"le; drop table x --`, "1"],
      ["UPDATE", `Ta'b"le; drop table x --`, "1"],
      ["DELETE", `Ta'b"le; drop table x --`, "1"],
    ]);
    expect(changes[1]).toMatchObject({
      before: { x: 2, n: 3, new: "a", old: "b", v_frame: 5, $1: "e" },
      after: { x: 9, new: "a", ünï: "f" },
    });
  });

  test("what jsonb cannot hold leaves a gap in the log, and the write commits; a strict table refuses it", async () => {
    await using database = await open();
    await tracking(database, "create table todos (id int primary key, raw json)", "todos");
    await database.port.execute(String.raw`insert into todos values (1, '{"a": "\u0000"}')`);
    expect(await database.port.query("select id from todos")).toEqual([{ id: 1 }]);
    expect(await seen(database.port)).toMatchObject([{
      operation: "CREATE",
      key: null,
      after: {},
      context: { db: { gap: { sqlstate: "22P05" } } },
    }]);
    await track(database.db, "todos", { strict: true });
    await expect(database.port.execute("update todos set id = 2")).rejects.toMatchObject({ code: "22P05" });
    await track(database.db, "todos", { strict: false });
    await database.port.execute(`drop table ${BEMI}.changes cascade`);
    await database.port.execute("update todos set id = 3");
    expect(await database.port.query("select id from todos")).toEqual([{ id: 3 }]);
  });

  test("rolled back changes never appear, nor do those of a savepoint", async () => {
    await using database = await open();
    await tracking(database, TODOS, "todos");
    await inTransaction(
      database,
      `
      insert into todos (task) values ('kept'); savepoint s; insert into todos (task) values ('lost');
      select set_config('bemi.context', '{"user_id": 1}', true); rollback to s; insert into todos (task) values ('also kept')`,
    );
    await inTransaction(database, "insert into todos (task) values ('gone'); select 1/0").catch(() => {});
    const changes = await seen(database.port);
    expect(changes.map((c) => c.after.task)).toEqual(["kept", "also kept"]);
    expect(changes.map((c) => c.context.user_id)).toEqual([undefined, undefined]);
  });

  test("session_replication_role does not switch tracking off", async () => {
    await using database = await open();
    await tracking(database, TODOS, "todos");
    await database.port.transaction((tx) =>
      tx.execute("set local session_replication_role = replica; insert into todos (task) values ('Sleep')")
    );
    expect(await story(database.port)).toEqual(["CREATE todos 1"]);
  });

  test("a table renamed, altered, dropped and made again keeps being told apart", async () => {
    await using database = await open();
    await tracking(database, "create table todos (id int primary key, task text)", "todos");
    await database.port.execute("insert into todos values (1, 'a')");
    await database.port.execute("alter table todos rename to tasks");
    await database.port.execute("alter table tasks rename id to number");
    await database.port.execute("alter table tasks add done boolean default false, drop task");
    await database.port.execute("update tasks set done = true");
    await database.port.execute("drop table tasks");
    await database.port.execute("create table tasks (id int)");
    await database.port.execute("insert into tasks values (1)");
    expect((await seen(database.port)).map((c) => [c.table, c.key, c.after])).toEqual([
      ["todos", "1", { id: 1, task: "a" }],
      ["tasks", "1", { number: 1, done: true }],
    ]);
  });

  test("untrack stops it, and leaves what was recorded", async () => {
    await using database = await open();
    await tracking(database, TODOS, "todos");
    await database.port.execute("insert into todos (task) values ('Sleep')");
    await untrack(database.db, "todos");
    await database.port.execute("insert into todos (task) values ('Eat')");
    expect(await story(database.port)).toEqual(["CREATE todos 1"]);
  });

  test("refuses what cannot be tracked, and says why", async () => {
    await using database = await open();
    await tracking(
      database,
      `${TODOS} create view open_todos as select * from todos; create temporary table scratch (id int)`,
    );
    for (const table of ["open_todos", "pg_class", `${BEMI}.changes`, "scratch"]) {
      await expect(track(database.db, table)).rejects.toMatchObject({ code: "not_trackable" });
    }
    for (const table of ["nope", "a.b.c.d", 'un"closed', ""]) {
      await expect(track(database.db, table)).rejects.toMatchObject({ code: "table_missing" });
    }
    await expect(track(database.db, "todos", { ignore: ["nope"] })).rejects.toMatchObject({
      code: "not_trackable",
    });
    await expect(track(database.db, "todos", { mask: ["id"] })).rejects.toMatchObject({
      code: "not_trackable",
    });
  });
});

onEachServer("trigger capture", (open) => {
  test("a role without any right on Bemi's schema can write, and can neither read nor change the log", async () => {
    await using database = await open();
    await tracking(database, TODOS, "todos");
    const role = `writer_${process.pid}_${Math.floor(Math.random() * 1e9)}`;
    await database.port.execute(
      `create role ${role} login; grant select, insert, update, delete on todos to ${role};
      create schema ${role} authorization ${role}`,
    );
    const sql = database.connect({ username: role, max: 1 } as never);
    await sql.unsafe(`set search_path = ${role}, pg_catalog, public`);
    // What a hostile search_path would be tried with.
    await sql.unsafe(
      `create function ${role}.to_jsonb(anyelement) returns jsonb language sql as 'select ''{"forged": true}''::jsonb';
      create function ${role}.current_query() returns text language sql as 'select ''forged''';
      create function ${role}.nextval(regclass) returns bigint language sql as 'select 1::bigint'`,
    );
    await sql`select set_config('bemi.maintenance', 'on', false)`;
    await sql`insert into todos (task) values ('Sleep')`;
    await sql`update todos set task = 'Eat'`;
    for (
      const statement of [
        `select from ${BEMI}.changes`,
        "select from public.changes",
        `delete from ${BEMI}.changes`,
        `truncate ${BEMI}.changes`,
        `select ${BEMI}.untrack('todos')`,
        `select ${BEMI}.write_gap('todos'::regclass, 'CREATE', '00000')`,
        "alter table todos disable trigger all",
        `drop trigger "!${OWN_NAME}_insert" on todos`,
        `select from ${BEMI}.maintain()`,
      ]
    ) {
      await expect(sql.unsafe(statement), statement).rejects.toMatchObject({ code: "42501" });
    }
    const changes = await seen(database.port);
    expect(changes.map((c) => c.after.task)).toEqual(["Sleep", "Eat"]);
    expect(changes[0]?.context).toMatchObject({
      db: { user: role, role },
      SQL: "insert into todos (task) values ('Sleep')",
    });
    await sql.end();
    await database.port.execute(`drop owned by ${role}; drop role ${role}`);
  });

  test("COPY of many rows gives as many changes, in order", async () => {
    await using database = await open();
    await tracking(database, "create table todos (id int primary key, task text)", "todos");
    const copy = await database.db`copy todos from stdin`.writable();
    for (let id = 1; id <= 1000; id++) copy.write(`${id}\ttask ${id}\n`);
    await new Promise<void>((done, fail) => copy.on("error", fail).on("finish", () => done()).end());
    expect((await story(database.port)).map((line) => line.split(" ")[2])).toEqual(
      Array.from({ length: 1000 }, (_, i) => String(i + 1)),
    );
  });

  test("a LATIN1 database keeps its characters", async () => {
    await using database = await open({ encoding: "LATIN1" });
    await tracking(database, TODOS, "todos");
    await database.db.begin(async (tx) => {
      await tx`select set_config('bemi.context', '{"naïve": "café"}', true)`;
      await tx`insert into todos (task) values ('Crème brûlée')`;
    });
    expect(await seen(database.port)).toMatchObject([{
      after: { task: "Crème brûlée" },
      context: { naïve: "café" },
    }]);
  });

  test("the first write of a fresh database makes nobody wait for its commit", async () => {
    await using database = await open();
    await tracking(database, "create table todos (id int primary key)", "todos");
    const [one, other] = [database.connect({ max: 1 }), database.connect({ max: 1 })];
    await one`begin`;
    await one`insert into todos values (1)`;
    await other`set lock_timeout = '1s'`;
    await other`insert into todos values (2)`;
    await one`commit`;
    expect(await story(database.port)).toHaveLength(2);
  });

  test("overlapping transactions: readers in the total order see each key's history as it happened", async () => {
    await using database = await open();
    await tracking(database, "create table todos (id int primary key, n int)", "todos");
    await database.db`insert into todos select i, 0 from generate_series(1, 5) i`;
    const sql = database.connect({ max: 8 });
    await Promise.all(Array.from({ length: 200 }, (_, i) =>
      sql.begin(async (tx) => {
        const [a, b] = [i % 5 + 1, (i * 3) % 5 + 1].sort((x, y) => x - y) as [number, number];
        await tx`update todos set n = n + 1 where id = ${a}`;
        await tx`update todos set n = n + 1 where id = ${b}`;
      })));
    const changes = await seen(database.port);
    expect(changes).toHaveLength(5 + 2 * 200);
    const last = new Map<string, unknown>();
    for (const change of changes) {
      if (change.operation === "UPDATE") expect(change.before.n).toBe(last.get(change.key ?? ""));
      last.set(change.key ?? "", change.after.n);
    }
  });
});
