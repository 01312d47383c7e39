import { expect, test } from "vitest";
import { onEachServer, type TestDatabase } from "./support/databases.ts";
import { BEMI, createSlot, install, runWorker, track } from "./support/installation.ts";
import { type Seen, seen } from "./support/todos.ts";

type Capture = "trigger" | "wal";

interface Given {
  /** DDL, before its tables are tracked. */
  readonly tables: string;
  readonly tracked: readonly string[];
  /** What the application does, on one connection. */
  readonly statements: readonly string[];
}

const CAPTURES: readonly Capture[] = ["trigger", "wal"];

// Each was a difference between the paths, found by test/differential.
onEachServer("what every path of capture has alike", (open) => {
  const run = async (
    database: TestDatabase & { url: string },
    capture: Capture,
    given: Given,
  ): Promise<Seen[]> => {
    const { db, port } = database;
    await install(db);
    if (capture === "wal") await createSlot(db);
    await port.execute(given.tables);
    for (const table of given.tracked) await track(db, table, { capture });
    const session = database.connect({ max: 1 });
    for (const statement of given.statements) await session.unsafe(statement);
    if (capture === "wal") await runWorker({ source: database.url, once: true }).finished;
    return await seen(port);
  };

  test.each(CAPTURES)("values, whatever the session prints them like (%s)", async (capture) => {
    await using database = await open();
    const changes = await run(database, capture, {
      tables:
        "create table todos (id int primary key, due timestamptz, span interval, days daterange, raw bytea, weight float8)",
      tracked: ["todos"],
      statements: [
        "set datestyle = 'German'; set timezone = 'Asia/Kolkata'; set intervalstyle = 'iso_8601'; set bytea_output = 'escape'; set extra_float_digits = 0",
        "insert into todos values (1, '2026-03-01 12:00+00', '1 day 02:00', '[2026-03-01,2026-03-05)', '\\x00ff', 0.1::float8 + 0.2::float8)",
        "update todos set weight = 0.3",
      ],
    });
    expect(changes.map((change) => change.after)).toEqual([
      {
        id: 1,
        due: "2026-03-01T12:00:00+00:00",
        span: "1 day 02:00:00",
        days: "[2026-03-01,2026-03-05)",
        raw: "\\x00ff",
        weight: 0.30000000000000004,
      },
      expect.objectContaining({ weight: 0.3 }),
    ]);
  });

  test.each(CAPTURES)("names of types and tables with their schemas (%s)", async (capture) => {
    await using database = await open();
    const changes = await run(database, capture, {
      tables:
        "create type public.mood as enum ('sad'); create table public.todos (id regclass primary key, type regtype[])",
      tracked: ["todos"],
      // To the session's search_path both are known by their names alone.
      statements: ["insert into todos values ('todos', '{mood,int4}')"],
    });
    expect(changes.map(({ key, after }) => [key, after])).toEqual([
      ["public.todos", { id: "public.todos", type: ["public.mood", "integer"] }],
    ]);
  });

  test.each(CAPTURES)(
    "a change whose context escapes a character that the database's encoding lacks (%s)",
    async (capture) => {
      await using database = await open({ encoding: "SQL_ASCII" });
      const changes = await run(database, capture, {
        tables: "create table todos (id int primary key)",
        tracked: ["todos"],
        statements: [
          `begin; select set_config('bemi.context', '{"name": "\\u00e9"}', true); insert into todos values (1)`,
          `select set_config('bemi.context', '{"name": "é"}', true)`,
          "insert into todos values (2)",
          "commit",
        ],
      });
      expect(changes.map(({ key, context }) => ({ key, ...context }))).toMatchObject([
        {
          key: "1",
          db: { context_error: "not a JSON object" },
          SQL: expect.stringContaining("insert into todos values (1)"),
        },
        { key: "2", name: "é" },
      ]);
      expect(changes[0]?.context).not.toHaveProperty("name");
    },
  );

  test.each(CAPTURES)(
    "a move that a trigger ends half-way, before one of another row (%s)",
    async (capture) => {
      await using database = await open();
      const changes = await run(database, capture, {
        tables: `create table todos (id int, list int) partition by list (list);
        create table todos_1 partition of todos for values in (1);
        create table todos_2 partition of todos for values in (2);
        create function refuse() returns trigger language plpgsql as
          'begin return case when new.id <> 1 then new end; end';
        create trigger refuse before insert on todos_2 for each row execute function refuse()`,
        tracked: ["todos"],
        statements: ["insert into todos values (1, 1), (2, 1)", "update todos set list = 2"],
      });
      expect(changes.slice(2).map(({ operation, before, after }) => [operation, before, after]).sort())
        .toEqual([
          ["DELETE", { id: 1, list: 1 }, {}],
          ["UPDATE", { id: 2, list: 1 }, { id: 2, list: 2 }],
        ]);
    },
  );

  const PARTITIONED = `create table todos (id int, list int) partition by list (list);
    create table todos_1 partition of todos for values in (1);
    create table todos_2 partition of todos for values in (2);`;
  const line = ({ operation, before, after, context }: Seen): string =>
    [operation, before.id, before.list, after.id, after.list, String(context.SQL).split(" ")[0]].join(" ");

  test.each(CAPTURES)("moves beside rows that a MERGE deletes (%s)", async (capture) => {
    await using database = await open();
    const changes = await run(database, capture, {
      tables: PARTITIONED,
      tracked: ["todos"],
      statements: [
        "insert into todos values (1, 1), (2, 1), (3, 1), (4, 1)",
        `merge into todos using (values (1), (2), (3), (4)) as s (id) on todos.id = s.id
          when matched and s.id in (2, 4) then delete when matched then update set list = 2`,
        "insert into todos values (5, 1)",
        "delete from todos where id = 5",
        // Of what moves alone, and beside an insertion.
        "insert into todos values (6, 1), (7, 1)",
        "merge into todos using (values (6)) as s (id) on todos.id = s.id when matched then update set list = 2",
        `merge into todos using (values (7), (8)) as s (id) on todos.id = s.id
          when matched then update set list = 2 when not matched then insert values (8, 1)`,
      ],
    });
    expect(changes.slice(4).map(line).sort()).toEqual([
      "CREATE   5 1 insert",
      "CREATE   6 1 insert",
      "CREATE   7 1 insert",
      "CREATE   8 1 merge",
      "DELETE 2 1   merge",
      "DELETE 4 1   merge",
      "DELETE 5 1   delete",
      "UPDATE 1 1 1 2 merge",
      "UPDATE 3 1 3 2 merge",
      "UPDATE 6 1 6 2 merge",
      "UPDATE 7 1 7 2 merge",
    ]);
  });

  test.each(CAPTURES)("moves beside rows that a trigger adds (%s)", async (capture) => {
    await using database = await open();
    const changes = await run(database, capture, {
      tables: `${PARTITIONED} create function note() returns trigger language plpgsql as
          'begin insert into todos values (new.id + 100, 1); return new; end';
        create trigger note before update on todos_1 for each row execute function note()`,
      tracked: ["todos"],
      statements: [
        "insert into todos values (11, 1), (12, 1)",
        "update todos set list = 2 where id in (11, 12)",
      ],
    });
    expect(changes.slice(2).map(line).sort()).toEqual([
      "CREATE   111 1 undefined",
      "CREATE   112 1 undefined",
      "UPDATE 11 1 11 2 update",
      "UPDATE 12 1 12 2 update",
    ]);
  });

  test.each(CAPTURES)("a context that is long, and one nested too deeply (%s)", async (capture) => {
    await using database = await open();
    const changes = await run(database, capture, {
      tables: "create table todos (id int primary key)",
      tracked: ["todos"],
      statements: [
        "begin",
        `select set_config('bemi.context', '{"text": "' || repeat('x', 9000000) || '"}', true)`,
        "insert into todos values (1)",
        `select set_config('bemi.context', '{"list": ' || repeat('[', 30000) || repeat(']', 30000) || '}', true)`,
        "insert into todos values (2)",
        "commit",
      ],
    });
    expect(changes.map(({ key, context }) => [key, String(context.text).length, context.db])).toEqual([
      ["1", 9_000_000, expect.not.objectContaining({ context_error: expect.anything() })],
      ["2", expect.anything(), expect.objectContaining({ context_error: "not a JSON object" })],
    ]);
  });

  test.each(CAPTURES)(
    "a partition's move, whatever a backslash means to the session (%s)",
    async (capture) => {
      await using database = await open();
      const changes = await run(database, capture, {
        tables:
          `create table todos (id int, list int, twice int generated always as (id * 2) stored) partition by list (list);
        create table todos_1 partition of todos for values in (1);
        create table todos_2 partition of todos for values in (2)`,
        tracked: ["todos"],
        statements: [
          "set standard_conforming_strings = off",
          "insert into todos values (1, 1), (2, 1)",
          "update todos set list = 2",
        ],
      });
      expect(changes.map((change) => `${change.operation} ${change.after.id} ${change.after.list}`)).toEqual([
        "CREATE 1 1",
        "CREATE 2 1",
        "UPDATE 1 2",
        "UPDATE 2 2",
      ]);
    },
  );

  test.each(CAPTURES)("a partition's moves, whatever is written in between (%s)", async (capture) => {
    await using database = await open();
    const changes = await run(database, capture, {
      // What a foreign key's action writes is begun at once, and its triggers end it only behind all others.
      tables: `create table todos (id int primary key) partition by list (id);
        create table todos_1 partition of todos for values in (1, 2);
        create table todos_2 partition of todos default;
        create table notes (id int primary key, todo int references todos on update cascade on delete cascade);
        create function nothing() returns trigger language plpgsql as $$ begin return new; end $$;
        create trigger nothing before insert or update on todos for each row execute function nothing();
        create trigger nothing before insert or update on notes for each row execute function nothing()`,
      tracked: ["todos", "notes"],
      statements: [
        "insert into todos values (1), (2)",
        "insert into notes values (1, 1), (2, 2)",
        "update todos set id = id + 10",
      ],
    });
    const told = changes.filter(({ table }) => table === "todos").map(({ operation, key }) =>
      `${operation} ${key}`
    );
    expect(told).toEqual(["CREATE 1", "CREATE 2", "UPDATE 11", "UPDATE 12"]);
  });

  test.each(CAPTURES)("the context that was in force when the statement began (%s)", async (capture) => {
    await using database = await open();
    const changes = await run(database, capture, {
      tables: `create table todos (id int primary key, task text);
        create function impersonate() returns trigger language plpgsql as
          $$ begin perform set_config('bemi.context', '{"user": "trigger"}', true); return new; end $$;
        create trigger impersonate before insert or update on todos for each row execute function impersonate()`,
      tracked: ["todos"],
      statements: [
        `begin; select set_config('bemi.context', '{"user": "a"}', true); insert into todos values (1, 'a'), (2, 'b')`,
        "update todos set task = 'c' where id = 1; commit",
      ],
    });
    expect(changes.map((change) => change.context.user)).toEqual(["a", "a", "trigger"]);
  });

  test.each(CAPTURES)(
    "a TRUNCATE, once for a partitioned table and once for a partition (%s)",
    async (capture) => {
      await using database = await open();
      const changes = await run(database, capture, {
        tables: `create table todos (id int, list int) partition by list (list);
        create table todos_1 partition of todos for values in (1) partition by hash (id);
        create table todos_1a partition of todos_1 for values with (modulus 1, remainder 0);
        create table todos_2 partition of todos for values in (2)`,
        tracked: ["todos"],
        statements: [
          "truncate todos",
          "truncate todos_1",
          "begin; truncate todos_2; truncate todos_1a; commit",
          "truncate todos_2, todos",
          "truncate todos_2; truncate todos",
        ],
      });
      const truncates = changes.map((change) => `${change.operation} ${change.table}`);
      expect(truncates).toEqual(Array.from({ length: 7 }, () => "TRUNCATE todos"));
    },
  );

  test.each(CAPTURES)("rows of an attached partition, under the root's name (%s)", async (capture) => {
    await using database = await open();
    const changes = await run(database, capture, {
      tables: `create table todos (id int, list int, primary key (id, list)) partition by list (list);
        create table former (id int not null, list int not null)`,
      tracked: ["todos", "former"],
      statements: [
        "alter table todos attach partition former for values in (2)",
        "insert into former values (1, 2)",
      ],
    });
    expect(changes.map((change) => [change.table, change.key])).toEqual([["todos", "[1, 2]"]]);
  });

  test.each(CAPTURES)("the schema's new name, after it was renamed (%s)", async (capture) => {
    await using database = await open();
    await run(database, capture, {
      tables: "create schema app; create table app.todos (id int primary key)",
      tracked: ["app.todos"],
      statements: [
        "insert into app.todos values (1)",
        "alter schema app rename to web",
        "insert into web.todos values (2)",
      ],
    });
    expect(
      await database.port.query(`select schema from ${BEMI}.changes order by commit_lsn, transaction_index`),
    ).toEqual([{ schema: "app" }, { schema: "web" }]);
  });

  test.each(CAPTURES)("a partitioned table's new name, after it was renamed (%s)", async (capture) => {
    await using database = await open();
    const changes = await run(database, capture, {
      tables: `create table todos (id int, list int) partition by list (list);
        create table todos_1 partition of todos for values in (1);
        create table todos_2 partition of todos for values in (2)`,
      tracked: ["todos"],
      // PostgreSQL goes on with the name that it sent with the partition's first row.
      statements: [
        "insert into todos values (1, 1)",
        "alter table todos rename to tasks",
        "insert into tasks values (2, 1)",
        "update tasks set list = 2",
        "truncate todos_2",
      ],
    });
    expect(changes.map((change) => `${change.operation} ${change.table}`)).toEqual([
      "CREATE todos",
      "CREATE tasks",
      "UPDATE tasks",
      "UPDATE tasks",
      "TRUNCATE tasks",
    ]);
  });

  test.each(CAPTURES)("keys as jsonb has them, floating and signed (%s)", async (capture) => {
    await using database = await open();
    const changes = await run(database, capture, {
      tables: "create table todos (weight float8 primary key, other float4)",
      tracked: ["todos"],
      statements: [
        "insert into todos values (1e-7, 1e20), (1.5e20, 1e-5), ('-0', 0), ('Infinity', 1)",
        "update todos set weight = 0 where weight = 0",
      ],
    });
    expect(changes.map((change) => change.key)).toEqual([
      "0.0000001",
      "150000000000000000000",
      "0",
      "Infinity",
    ]);
  });
});

onEachServer("the worker, reading what was written before", (open) => {
  test("knows the keys and the types of what is dropped by now", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    await createSlot(db);
    await port.execute(`create schema app;
      create domain app.score as numeric;
      create type app.place as (street text, number int);
      create table app.todos (id app.score primary key, place app.place, scores app.score[], places app.place[])`);
    await track(db, "app.todos", { capture: "wal" });
    await port.execute("insert into app.todos values (1.50, ('a', 1), '{1,2}', array[('b', 2)::app.place])");
    await port.execute("alter type app.place drop attribute street cascade");
    await port.execute("alter table app.todos rename column id to number");
    await port.execute("update app.todos set scores = '{3}'");
    await port.execute("drop schema app cascade");
    await runWorker({ source: database.url, once: true }).finished;
    const changes = await seen(port);
    expect(changes.map((change) => change.key)).toEqual(["1.50", "1.50"]);
    expect(changes.map((change) => change.after)).toEqual([
      { id: 1.5, place: { street: "a", number: 1 }, scores: [1, 2], places: [{ street: "b", number: 2 }] },
      { number: 1.5, place: { number: 1 }, scores: [3], places: [{ number: 2 }] },
    ]);
  });

  test("goes on after an escape in JSON that the database's encoding lacks", async () => {
    await using database = await open({ encoding: "SQL_ASCII" });
    const { db, port } = database;
    await install(db);
    await createSlot(db);
    await port.execute("create table todos (id int primary key, data json)");
    await track(db, "todos", { capture: "wal" });
    await port.execute(`insert into todos values (1, '{"a": 1}'), (2, E'{"a": "\\\\u00e9"}'), (3, null)`);
    await runWorker({ source: database.url, once: true }).finished;
    expect((await seen(port)).map((change) => change.key)).toEqual(["1", "3"]);
    // 0A000, from PostgreSQL 16 on 22P05.
    expect(await port.query(`select count(*)::int as count from ${BEMI}.set_aside`)).toEqual([{ count: 1 }]);
  });

  test("ends, and says why, where the database holds a text that UTF-8 has not", async () => {
    await using database = await open({ encoding: "WIN1252" });
    const { db, port } = database;
    await install(db);
    await createSlot(db);
    await port.execute("create table todos (id int primary key, task text)");
    await track(db, "todos", { capture: "wal" });
    await port.execute(`insert into todos values (1, convert_from('\\x81', 'WIN1252'))`);
    for (const mode of ["poll", "stream"] as const) {
      await using worker = runWorker({ source: database.url, mode });
      await expect(worker.finished).rejects.toMatchObject({ code: "22P05" });
    }
  });

  test("takes vectors of numbers for the arrays that they are", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    await createSlot(db);
    await port.execute("create table todos (id int primary key, numbers int2vector, oids oidvector)");
    await track(db, "todos", { capture: "wal" });
    await port.execute("insert into todos values (1, '1 2', '3 4'), (2, '', null)");
    await runWorker({ source: database.url, once: true }).finished;
    expect(
      await port.query(
        `select c.after = to_jsonb(t.*) as same from ${BEMI}.changes c join todos t on t.id::text = c.primary_key`,
      ),
    )
      .toEqual([{ same: true }, { same: true }]);
  });
});

onEachServer("reconcile()", (open) => {
  test("finds a partitioned table together with its partitions", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    await port.execute(`update ${BEMI}.settings set track_all = true; set bemi.reconciling = 'on';
      create table todos (id int, done boolean generated always as (id > 1) stored) partition by list (id);
      create table todos_1 (done boolean generated always as (id > 1) stored, id int);
      alter table todos attach partition todos_1 default;
      set bemi.reconciling = ''; select ${BEMI}.reconcile()`);
    await port.execute("insert into todos (id) values (1)");
    expect((await seen(port)).map((change) => change.after)).toEqual([{ id: 1, done: false }]);
  });
});
