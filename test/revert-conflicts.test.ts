import { expect, test } from "vitest";
import type { RevertConflict, RevertPlan } from "../src/history/mod.ts";
import { BEMI } from "./support/installation.ts";
import { orderSteps } from "../src/history/revert/order.ts";
import type { RowStep } from "../src/history/revert/steps.ts";
import { onEachCapture } from "./support/reverting.ts";
import { TODOS } from "./support/todos.ts";

const UNDO = { context: { undo: true } } as const;

/** What is in the way: kind, table, key, columns. */
const told = ({ conflicts }: RevertPlan): unknown[] =>
  conflicts.map(({ kind, table, key, columns }: RevertConflict) => [kind, table, key, columns]);

const steps = ({ statements }: RevertPlan): string[] =>
  statements.map(({ operation, table, key }) => `${operation} ${table} ${key}`);

onEachCapture("a revert's conflicts", (open) => {
  test("a row changed since, deleted since, or changed in between by others", async () => {
    await using db = await open();
    await db.track(TODOS, ["todos"]);
    await db.as({}, "insert into todos (task) values ('one'), ('two'), ('three'), ('four')");
    await db.as(
      { undo: true },
      "update todos set task = task || '!'; insert into todos (task) values ('five')",
    );
    await db.as(
      {},
      "update todos set is_completed = true where id in (1, 5); delete from todos where id = 2",
    );
    await db.as({}, "update todos set is_completed = true where id = 3");
    await db.as({ undo: true }, "update todos set task = '3!' where id = 3");
    const plan = await db.plan(UNDO);
    expect(told(plan)).toEqual([
      ["row_changed", "todos", "1", ["is_completed"]],
      ["row_changed", "todos", "2", []],
      ["row_changed", "todos", "3", []],
      ["row_changed", "todos", "5", ["is_completed"]],
    ]);
    expect(plan.conflicts.map(({ changes }) => changes.length)).toEqual([1, 1, 1, 1]);
    expect(steps(plan)).toEqual(["UPDATE todos 4"]);
    const before = await db.rows("todos");
    await expect(db.revert(UNDO)).rejects.toMatchObject({
      name: "BemiError",
      code: "conflict",
      plan: { conflicts: plan.conflicts },
    });
    expect(await db.rows("todos")).toEqual(before);
    await db.revert(UNDO, { onConflict: ({ key }) => key === "5" ? "skip" : "force" });
    const short = (await db.rows("todos")).map((row) =>
      JSON.parse(row) as { id: number; task: string; is_completed: boolean }
    )
      .map(({ id, task, is_completed }) => [id, task, is_completed]);
    expect(short).toEqual([[1, "one", true], [2, "two", false], [3, "three", true], [4, "four", false], [
      5,
      "five",
      true,
    ]]);
  });

  test("what somebody changed without its being recorded", async () => {
    await using db = await open();
    await db.track("create table todos (id int primary key, task text)", ["todos"]);
    await db.as({}, "insert into todos values (1, 'a')");
    await db.as({ undo: true }, "update todos set task = 'b'");
    await db.plan(UNDO);
    await db.execute(
      `set bemi.reconciling = 'on'; alter table todos disable trigger all; reset bemi.reconciling`,
    );
    if (db.capture === "wal") {
      await db.execute(`alter publication ${(await publication(db))} drop table todos`);
    }
    await db.execute("update todos set task = 'c'");
    const plan = await db.plan(UNDO);
    expect(told(plan)).toEqual([["row_changed", "todos", "1", ["task"]]]);
    expect(plan.conflicts[0]?.changes).toEqual([]);
  });

  test("a key that another row has by now", async () => {
    await using db = await open();
    await db.track(
      "create table todos (id int primary key, task text); create table old (id int primary key)",
      ["todos", "old"],
    );
    await db.as({}, "insert into todos values (1, 'a'), (2, 'b'); insert into old values (1)");
    await db.as({ undo: true }, "delete from todos where id = 1; update todos set id = 3 where id = 2");
    await db.as({}, "insert into todos values (1, 'mine'), (2, 'mine too')");
    const plan = await db.plan(UNDO);
    expect(told(plan)).toEqual([["key_reused", "todos", "1", ["id"]], ["key_reused", "todos", "3", ["id"]]]);
    expect(plan.conflicts.map(({ canForce }) => canForce)).toEqual([true, false]);
    await expect(db.revert(UNDO, { onConflict: "force" })).rejects.toMatchObject({ code: "conflict" });
    await db.revert(UNDO, { onConflict: ({ canForce }) => canForce ? "force" : "skip" });
    expect(await db.rows("todos")).toEqual([
      '{"id": 1, "task": "a"}',
      '{"id": 2, "task": "mine too"}',
      '{"id": 3, "task": "b"}',
    ]);
  });

  test("a value that may be there once, and is somebody else's by now", async () => {
    await using db = await open();
    await db.track("create table people (id int primary key, email text unique)", ["people"]);
    await db.as({}, "insert into people values (1, 'ann@x'), (2, 'bea@x')");
    await db.as(
      { undo: true },
      "update people set email = 'old' where id = 1; delete from people where id = 2",
    );
    await db.as({}, "insert into people values (3, 'ann@x')");
    const plan = await db.plan(UNDO);
    expect(plan.conflicts).toMatchObject([{
      kind: "unique",
      key: "1",
      columns: ["email"],
      constraint: "people_email_key",
      canForce: false,
    }]);
    expect(steps(plan)).toEqual(["INSERT people 2"]);
  });

  test("rows that point at what goes, and rows that are pointed at and gone", async () => {
    await using db = await open();
    await db.track(
      `create table lists (id int primary key);
      create table kept (id int primary key, list_id int references lists);
      create table owned (id int primary key, list_id int references lists on delete cascade);
      create table loose (id int primary key, list_id int references lists on delete set null)`,
      ["lists", "kept", "owned", "loose"],
    );
    await db.as({}, "insert into lists values (9); insert into kept values (9, 9)");
    await db.as(
      { undo: true },
      "insert into lists values (1), (2), (3), (4); insert into kept values (4, 4); delete from kept where id = 9",
    );
    await db.as(
      {},
      "insert into kept values (1, 1); insert into owned values (2, 2); insert into loose values (3, 3)",
    );
    await db.as({}, "delete from lists where id = 9");
    const plan = await db.plan(UNDO);
    expect(
      plan.conflicts.map((
        { kind, table, key, constraint, canForce },
      ) => [kind, table, key, constraint, canForce]),
    )
      .toEqual(expect.arrayContaining([
        ["foreign_key", "lists", "1", "kept_list_id_fkey", false],
        ["foreign_key", "lists", "2", "owned_list_id_fkey", true],
        ["foreign_key", "lists", "3", "loose_list_id_fkey", true],
        ["foreign_key", "kept", "9", "kept_list_id_fkey", false],
      ]));
    expect(steps(plan)).toEqual(["DELETE kept 4", "DELETE lists 4"]);
    await db.revert(UNDO, { onConflict: ({ canForce }) => canForce ? "force" : "skip" });
    expect(await db.rows("lists")).toEqual(['{"id": 1}']);
    expect([await db.rows("kept"), await db.rows("owned"), await db.rows("loose")])
      .toEqual([['{"id": 1, "list_id": 1}'], [], ['{"id": 3, "list_id": null}']]);
  });

  test("leaving out a row leaves out those that would point at it", async () => {
    await using db = await open();
    await db.track(
      "create table lists (id int primary key, title text unique); create table todos (id int primary key, list_id int references lists on delete cascade)",
      ["lists", "todos"],
    );
    await db.as({}, "insert into lists values (1, 'a'), (2, 'b'); insert into todos values (1, 1), (2, 2)");
    await db.as({ undo: true }, "delete from lists");
    await db.as({}, "insert into lists values (3, 'a')");
    const plan = await db.plan(UNDO, { onConflict: "skip" });
    expect(plan.conflicts.map(({ kind, table, key }) => [kind, table, key])).toEqual([[
      "unique",
      "lists",
      "1",
    ], ["foreign_key", "todos", "1"]]);
    expect(steps(plan)).toEqual(["INSERT lists 2", "INSERT todos 2"]);
  });

  test("rings: deferred where they can be, else opened by a NULL, by a value from in between, or told", async () => {
    await using db = await open();
    await db.track(
      `create table a (id int primary key, b int);
      create table b (id int primary key, a int not null references a);
      alter table a add foreign key (b) references b;
      create table c (id int primary key, d int not null);
      create table d (id int primary key, c int not null references c);
      alter table c add foreign key (d) references d deferrable;
      create table e (id int primary key, f int not null);
      create table f (id int primary key, e int not null references e);
      alter table e add foreign key (f) references f;
      create table g (id int primary key, seat int not null unique)`,
      ["a", "b", "c", "d", "e", "f", "g"],
    );
    await db.as(
      {},
      `insert into a values (1, null); insert into b values (1, 1); update a set b = 1;
      set constraints all deferred; insert into c values (1, 1); insert into d values (1, 1)`,
    );
    await db.as({}, "with x as (insert into e values (1, 1)) insert into f values (1, 1)");
    await db.as({}, "insert into g values (1, 1), (2, 2)");
    const before = await Promise.all(["a", "b", "c", "d", "g"].map(db.rows));
    await db.as(
      { undo: true },
      `update a set b = null; delete from b; delete from a;
      set constraints all deferred; delete from d; delete from c;
      update g set seat = -1 where id = 1; update g set seat = 1 where id = 2; update g set seat = 2 where id = 1`,
    );
    const forth = await db.revert(UNDO);
    expect(await Promise.all(["a", "b", "c", "d", "g"].map(db.rows))).toEqual(before);
    await db.revert({ transaction: forth.transaction ?? "" });
    expect(await Promise.all(["a", "b", "c", "d"].map(db.rows))).toEqual([[], [], [], []]);
    await db.as({ ring: true }, "with x as (delete from e) delete from f");
    const plan = await db.plan({ context: { ring: true } });
    expect(plan.conflicts.map(({ kind, table }) => `${kind} ${table}`).sort()).toEqual([
      "cycle e",
      "cycle f",
    ]);
    expect(plan.statements).toEqual([]);
  });

  test("columns gone, tables gone, values needed, values that today's type refuses", async () => {
    await using db = await open();
    await db.track(
      `create table todos (id int primary key, task text, size text);
      create table gone (id int primary key)`,
      ["todos", "gone"],
    );
    await db.as({}, "insert into todos values (1, 'a', 'large'), (2, 'b', '2'); insert into gone values (1)");
    await db.as(
      { undo: true },
      "update todos set task = 'c', size = '1' where id = 1; delete from todos where id = 2; delete from gone",
    );
    await db.plan(UNDO);
    await db.execute(
      `alter table todos drop column task; alter table todos alter size type int using size::int;
      alter table todos add due date not null default '2026-01-01'; alter table todos alter due drop default;
      drop table gone`,
    );
    const plan = await db.plan(UNDO);
    expect(told(plan)).toEqual([
      ["table_gone", "gone", null, []],
      ["column_gone", "todos", "1", ["task"]],
      ["unreadable", "todos", "1", ["size"]],
      ["column_gone", "todos", "2", ["task"]],
      ["not_null", "todos", "2", ["due"]],
    ]);
    expect(plan.statements).toEqual([]);
    await db.execute("alter table todos alter due set default '2026-01-01'");
    await db.revert(UNDO, { onConflict: ({ canForce }) => canForce ? "force" : "skip" });
    expect(await db.rows("todos")).toEqual([
      '{"id": 1, "due": "2026-01-01", "size": 1}',
      '{"id": 2, "due": "2026-01-01", "size": 2}',
    ]);
  });

  test("values that jsonb does not hold as they were, and masked ones", async () => {
    await using db = await open();
    await db.track(
      "create table notes (id int primary key, body json, tags jsonb[], secret text)",
      ["notes"],
      { mask: ["secret"] },
    );
    await db.as(
      {},
      `insert into notes values (1, '{"b": 1,  "a": 2, "a": 3}', '{}', 'x'), (2, '"a"', array['[1]'::jsonb], 'y'), (3, '1', array['1'::jsonb], 'z')`,
    );
    await db.as(
      { undo: true },
      "update notes set body = null where id = 1; update notes set tags = null where id = 2; delete from notes where id = 3",
    );
    const plan = await db.plan(UNDO);
    expect(told(plan)).toEqual([
      ["inexact", "notes", "1", ["body"]],
      ["inexact", "notes", "2", ["tags"]],
      ["masked", "notes", "3", ["secret"]],
    ]);
    await db.revert(UNDO, { onConflict: "force" });
    expect(await db.rows("notes")).toEqual([
      '{"id": 1, "body": {"a": 3, "b": 1}, "tags": [], "secret": "x"}',
      '{"id": 2, "body": "a", "tags": [[1]], "secret": "y"}',
      '{"id": 3, "body": 1, "tags": [1], "secret": null}',
    ]);
  });

  test("a TRUNCATE of rows that the log never knew", async () => {
    await using db = await open();
    await db.track(
      "create table todos (id int primary key, task text); insert into todos values (1, 'a'), (2, 'b')",
      ["todos"],
    );
    await db.execute(`delete from ${BEMI}.baselines`);
    await db.as({}, "insert into todos values (3, 'c'); update todos set task = 'B' where id = 2");
    await db.as({ undo: true }, "truncate todos");
    const plan = await db.plan(UNDO);
    expect(told(plan)).toEqual([["truncated", "todos", null, []]]);
    expect(plan.statements).toEqual([]);
    expect(steps(await db.plan(UNDO, { onConflict: "force" }))).toEqual(
      expect.arrayContaining(["INSERT todos 2", "INSERT todos 3"]),
    );
    // From one TRUNCATE to the next everything is known.
    await db.as({}, "insert into todos values (4, 'd')");
    await db.as({ again: true }, "truncate todos");
    expect((await db.revert({ context: { again: true } })).conflicts).toEqual([]);
    expect(await db.rows("todos")).toEqual(['{"id": 4, "task": "d"}']);
  });

  test("what only the database knew: a constraint of its own, a trigger that says no", async () => {
    await using db = await open();
    await db.track("create table todos (id int primary key, task text)", ["todos"]);
    await db.as({}, "insert into todos values (1, 'a')");
    await db.as({ undo: true }, "update todos set task = 'long enough'");
    await db.plan(UNDO);
    await db.execute("alter table todos add constraint long check (length(task) > 5)");
    await expect(db.revert(UNDO, { onConflict: "force" })).rejects.toMatchObject({
      code: "conflict",
      plan: { conflicts: [{ kind: "refused", table: "todos", constraint: "long", canForce: false }] },
    });
    await db.execute(`alter table todos drop constraint long;
      create function no() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$;
      create trigger no before update on todos for each row execute function no()`);
    await expect(db.revert(UNDO)).rejects.toMatchObject({ plan: { conflicts: [{ kind: "refused" }] } });
    await db.execute(
      `create or replace function no() returns trigger language plpgsql as $$ begin return null; end $$`,
    );
    await expect(db.revert(UNDO)).resolves.toMatchObject({
      adjusted: [{ table: "todos", key: "1", columns: ["task"] }],
    });
    expect(await db.rows("todos")).toEqual(['{"id": 1, "task": "long enough"}']);
  });

  test("a change that is missing from the log", async () => {
    await using db = await open();
    await db.track("create table todos (id int primary key, task text)", ["todos"]);
    await db.as({}, "insert into todos values (1, 'a')");
    await db.as({ undo: true }, "update todos set task = 'b'");
    await db.plan(UNDO);
    if (db.capture === "wal") {
      await db.execute(`insert into ${BEMI}.gaps (source_id, from_lsn, to_source_id, to_lsn, reason)
        select source_id, max(commit_lsn), source_id, max(commit_lsn) + 100, 'test' from ${BEMI}.changes group by 1`);
    } else await db.execute(`select ${BEMI}.write_gap('todos'::regclass, 'UPDATE', '22P05')`);
    expect(told(await db.plan(UNDO))).toEqual([["gap", "todos", null, []]]);
    expect(told(await db.plan({ table: "todos", to: "2020-01-01" }))).toContainEqual([
      "gap",
      "todos",
      null,
      [],
    ]);
    await db.revert(UNDO, { onConflict: "force" });
    expect(await db.rows("todos")).toEqual(['{"id": 1, "task": "a"}']);
  });
});

test("hundreds of thousands of rows that point at one are put in order", () => {
  const parent = { schema: "public", table: "lists" };
  const child = { schema: "public", table: "todos" };
  const key = { child, parent, childColumns: ["list_id"], parentColumns: ["id"] };
  const insertion = (table: object, columns: Readonly<Record<string, string>>): RowStep => {
    const to = new Map(Object.entries(columns));
    return {
      operation: "INSERT",
      table: { ...table, uniques: [], foreignKeys: [key] },
      story: {},
      row: undefined,
      values: to,
      to,
    } as unknown as RowStep;
  };
  const children = Array.from(
    { length: 200_000 },
    (_, n) => insertion(child, { id: String(n), list_id: "1" }),
  );
  const { batches } = orderSteps([...children, insertion(parent, { id: "1" })]);
  expect(batches.map(({ length }) => length)).toEqual([1, 200_000]);
});

async function publication(
  db: { readonly database: { readonly port: { query<R extends object>(sql: string): Promise<R[]> } } },
): Promise<string> {
  const [row] = await db.database.port.query<{ name: string }>(
    `select quote_ident(${BEMI}.own_name()) as name`,
  );
  return row?.name ?? "";
}
