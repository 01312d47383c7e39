import fc from "fast-check";
import { expect, test } from "vitest";
import { trackAll } from "../src/install/mod.ts";
import {
  changesWithin,
  forward,
  mark as markDatabase,
  type MarkOptions,
  rewind,
} from "../src/testing/mod.ts";
import { BEMI, install, SCHEMA, track } from "./support/installation.ts";
import { onEachDatabase, onEachServer, type TestDatabase } from "./support/databases.ts";
import { TODOS } from "./support/todos.ts";

const mark = ({ db }: TestDatabase, options: MarkOptions = {}) =>
  markDatabase(db, { schema: SCHEMA, ...options });

async function state({ port }: TestDatabase, tables: readonly string[]): Promise<unknown> {
  const found = await Promise.all(
    tables.map((table) => port.query(`select to_jsonb(t.*)::text as row from ${table} t order by 1`)),
  );
  return [
    found,
    await port.query(
      `select sequencename, last_value::text from pg_sequences where schemaname <> $1 order by 1`,
      [SCHEMA],
    ),
  ];
}

onEachDatabase("test states", (open) => {
  test("what changed within a block", async () => {
    await using database = await open();
    await install(database.db);
    await database.port.execute(TODOS);
    await trackAll(database.db, { schema: SCHEMA });
    await database.port.execute(
      "insert into lists (title) values ('home'); insert into todos (task, list_id) values ('Sleep', 1)",
    );
    const within = await changesWithin(database.db, async () => {
      await database.port.execute("delete from lists");
      return 7;
    }, { schema: SCHEMA });
    expect(within.result).toBe(7);
    expect(within.changes.map(({ operation, table, before }) => [operation, table, before.id])).toEqual([
      ["DELETE", "lists", 1],
      ["DELETE", "todos", 1],
    ]);
    expect(await changesWithin(database.db, () => null, { schema: SCHEMA })).toEqual({
      result: null,
      changes: [],
    });
  });

  test("back to a mark and forth to another, with sequences, cascades, triggers, TRUNCATE and rows without a key", async () => {
    await using database = await open();
    const { port, db } = database;
    await install(db);
    await port.execute(`${TODOS} create table loose (n int, t text);
      create table totals (id int primary key, amount int not null);
      create function count_todos() returns trigger language plpgsql as $$ begin
        update totals set amount = amount + case tg_op when 'INSERT' then 1 else -1 end; return null; end $$;
      create trigger count_todos after insert or delete on todos for each row execute function count_todos()`);
    await trackAll(db, { schema: SCHEMA });
    await port.execute(`insert into totals values (1, 0); insert into lists (title) values ('home'), ('work');
      insert into todos (task, list_id) values ('Sleep', 1), ('Eat', 2); insert into loose values (1, 'a'), (1, 'a'), (2, 'b')`);
    const tables = ["lists", "todos", "loose", "totals"];
    const seeded = await mark(database);
    const atSeeded = await state(database, tables);
    const tests = [
      "insert into todos (task, list_id) values ('Rest', 1); update lists set title = 'x' where id = 2",
      "delete from lists where id = 1; insert into lists (id, title) values (1, 'again'); insert into lists (title) values ('new')",
      "update lists set id = id + 10 where id = 2 and false; update todos set id = id + 10; delete from loose where ctid = (select min(ctid) from loose)",
      "truncate todos; truncate loose; insert into loose values (9, 'z')",
      "truncate lists restart identity cascade",
    ];
    for (const sql of tests) {
      await port.execute(sql);
      await rewind(db, seeded);
      expect(await state(database, tables), sql).toEqual(atSeeded);
    }
    await port.execute(tests[1] ?? "");
    const later = await mark(database);
    const atLater = await state(database, tables);
    await port.execute(tests[2] ?? "");
    await rewind(db, seeded);
    expect(await state(database, tables)).toEqual(atSeeded);
    await forward(db, later);
    expect(await state(database, tables)).toEqual(atLater);
    await rewind(db, seeded);
    await rewind(db, seeded);
    expect(await state(database, tables)).toEqual(atSeeded);
  });

  test("what cannot be rewound is refused beforehand, or at the latest then", async () => {
    await using database = await open();
    const { port, db } = database;
    await install(db);
    await port.execute("create table a (id int primary key, x text); create table b (id int primary key)");
    await track(db, "a", { mask: ["x"] });
    await expect(mark(database)).rejects.toMatchObject({
      code: "usage",
      message: expect.stringContaining("b"),
    });
    await expect(mark(database, { allowUntracked: true })).rejects.toMatchObject({
      code: "usage",
      message: expect.stringMatching(/Masked.* a$/),
      hint: expect.stringContaining("track(db, table, { mask: [], ignore: [] })"),
    });
    await track(db, "a", { mask: [] });
    await port.execute("insert into a values (1, 'x')");
    const seeded = await mark(database, { allowUntracked: true });
    await port.execute("update a set x = 'y'");
    await port.execute("set bemi.reconciling = 'on'; alter table a disable trigger all; delete from a");
    await expect(rewind(db, seeded)).rejects.toMatchObject({ code: "conflict" });
    await expect(rewind(db, { schema: SCHEMA, sequences: [] })).rejects.toMatchObject({ code: "usage" });
  });
});

onEachServer("test states", (open) => {
  test("a role that may not let triggers sleep is told", async () => {
    await using database = await open();
    const { port, db } = database;
    await install(db);
    await port.execute("create table a (id int primary key)");
    await trackAll(db, { schema: SCHEMA });
    const seeded = await mark(database);
    const role = `plain_${process.pid}_${Math.floor(Math.random() * 1e9)}`;
    await port.execute(`create role ${role} login; grant usage on schema ${BEMI} to ${role}`);
    const sql = database.connect({ username: role } as never);
    await expect(rewind(sql, seeded)).rejects.toMatchObject({ code: "privilege_missing" });
    await sql.end();
    await port.execute(`drop owned by ${role}; drop role ${role}`);
  });

  test("any walk between marks finds each as it was", { timeout: 300_000 }, async () => {
    await using database = await open();
    const { port, db } = database;
    await install(db);
    await port.execute(
      `create table todos (id int generated by default as identity primary key, up int references todos on update cascade on delete cascade, n int unique)`,
    );
    await trackAll(db, { schema: SCHEMA });
    const id = fc.integer({ min: 1, max: 6 });
    const step = fc.oneof(
      id.map((n) => `insert into todos (up, n) select max(id), ${n} from todos`),
      fc.tuple(id, id).map(([a, b]) => `update todos set id = ${a} where id = ${b}`),
      id.map((n) => `update todos set n = null where n = ${n}`),
      id.map((n) => `delete from todos where id = ${n}`),
      fc.constant("truncate todos"),
      fc.record({ to: fc.nat(5) }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 3, maxLength: 12 }), async (steps) => {
        const marks = [{ mark: await mark(database), was: await state(database, ["todos"]) }];
        for (const one of steps) {
          if (typeof one === "string") {
            await port.execute(
              `do $do$ begin ${one}; exception when integrity_constraint_violation then null; end $do$`,
            );
            marks.push({ mark: await mark(database), was: await state(database, ["todos"]) });
          } else {
            const { mark, was } = marks[one.to % marks.length] ?? marks[0]!;
            await rewind(db, mark);
            expect(await state(database, ["todos"])).toEqual(was);
          }
        }
      }),
      { numRuns: 40 },
    );
  });
});
