import { expect, test } from "vitest";
import { onEachDatabase } from "./support/databases.ts";
import { BEMI, tracking } from "./support/installation.ts";
import { seen, story } from "./support/todos.ts";

onEachDatabase("capture by row", (open) => {
  test.each([
    [
      "an AFTER trigger that updates the row",
      `
      create function f() returns trigger language plpgsql as $$ begin
        update todos set task = task || '!' where id = new.id and length(task) < 3; return null; end $$;
      create trigger t after insert or update on todos for each row execute function f()`,
    ],
    [
      "an AFTER trigger that updates every row of the statement",
      `
      create function f() returns trigger language plpgsql as $$ begin
        update todos set task = task || '!' where length(task) < 4; return null; end $$;
      create trigger t after insert on todos for each row execute function f()`,
    ],
    [
      "an AFTER trigger that takes every change back",
      `
      create function f() returns trigger language plpgsql as $$ begin
        if pg_trigger_depth() < 2 then update todos set task = old.task where id = new.id; end if; return null; end $$;
      create trigger t after update on todos for each row execute function f()`,
    ],
    [
      "an AFTER trigger that puts deleted rows back",
      `
      create function f() returns trigger language plpgsql as $$ begin
        insert into todos select i, 'back' from generate_series(1, 3) i on conflict do nothing; return null; end $$;
      create trigger t after delete on todos for each row execute function f()`,
    ],
    [
      "a BEFORE trigger that replaces the row of the same key",
      `
      create function f() returns trigger language plpgsql as $$ begin
        delete from todos where id = new.id; new.task := upper(new.task); return new; end $$;
      create trigger t before insert on todos for each row execute function f()`,
    ],
    [
      "a foreign key that cascades to the table itself",
      `
      alter table todos add parent int references todos on delete cascade on update cascade;
      create function f() returns trigger language plpgsql as $$ begin return null; end $$;
      update todos set parent = 1 where id > 1`,
    ],
    [
      "a trigger on a child that writes the parent",
      `
      create table notes (todo int references todos on delete cascade on update cascade, n int);
      insert into notes values (1, 1), (2, 2);
      create function f() returns trigger language plpgsql as $$ begin
        update todos set task = 'n' where id = coalesce(new.todo, old.todo) and task <> 'n'; return null; end $$;
      create trigger t after update or delete on notes for each row execute function f()`,
    ],
  ])("each key's history is in its true order beside %s", async (_name, sql) => {
    await using database = await open();
    await tracking(database, "create table todos (id int primary key, task text)", "todos");
    await database.port.execute("insert into todos values (1, 'a'), (2, 'b'), (3, 'c')");
    await database.port.execute(sql);
    await database.port.query(`select ${BEMI}.reconcile()`);
    for (
      const statement of [
        "insert into todos values (4, 'd'), (5, 'e'), (6, 'f')",
        "update todos set task = task || '?'",
        "update todos set task = 'z' where id in (2, 3)",
        "insert into todos values (7, 'x') on conflict (id) do update set task = 'y'",
        "insert into todos values (8, 'k'), (9, 'l')",
        "update todos set id = id + 100 where id = 8",
        "delete from todos where id = 1",
        "delete from todos where id > 4",
      ]
    ) {
      await database.port.execute(statement).catch((error: { code?: string }) =>
        expect(error.code).toBe("23505")
      );
    }
    await database.port.transaction((tx) =>
      tx.execute(
        "insert into todos values (20, 'k'); update todos set task = 'm' where id = 20; delete from todos where id = 20; insert into todos values (20, 'k'); update todos set task = 'l' where id = 20",
      )
    );
    // Replaying the log key by key has to link up, and to end in the live rows.
    const rows = new Map<string, Record<string, unknown>>();
    for (const change of await seen(database.port)) {
      const former = change.former ?? change.key ?? "";
      const parentless = ({ parent: _, ...row }: Record<string, unknown>): unknown => row;
      expect(parentless(change.before), `${change.operation} ${change.key}`).toEqual(
        parentless(rows.get(former) ?? {}),
      );
      rows.delete(former);
      if (change.operation !== "DELETE") rows.set(change.key ?? "", change.after);
    }
    const live = await database.port.query<{ json: string }>(
      "select to_jsonb(todos.*)::text as json from todos order by id",
    );
    expect([...rows.values()].sort((a, b) => Number(a.id) - Number(b.id))).toEqual(
      live.map((row) => JSON.parse(row.json)),
    );
  });

  test("a partition move is one UPDATE also where the table has row triggers of its own", async () => {
    await using database = await open();
    await tracking(
      database,
      `
      create table todos (region text, id int, task text, primary key (region, id)) partition by list (region);
      create table todos_eu partition of todos for values in ('eu');
      create table todos_us partition of todos for values in ('us');
      create table touched (n int);
      create function f() returns trigger language plpgsql as $$ begin insert into touched values (1); return null; end $$;
      create trigger t after insert or update or delete on todos for each row execute function f()`,
      "todos",
      "touched",
    );
    await database.port.execute("insert into todos values ('eu', 1, 'a'), ('eu', 2, 'b')");
    await database.port.execute("update todos set region = 'us', task = task || '!'");
    await database.port.execute("delete from todos where id = 1");
    expect(
      (await seen(database.port)).filter((c) => c.table === "todos").map((
        c,
      ) => [c.operation, c.former, c.key, c.before.task, c.after.task]),
    ).toEqual([
      ["CREATE", null, '["eu", 1]', undefined, "a"],
      ["CREATE", null, '["eu", 2]', undefined, "b"],
      ["UPDATE", '["eu", 1]', '["us", 1]', "a", "a!"],
      ["UPDATE", '["eu", 2]', '["us", 2]', "b", "b!"],
      ["DELETE", null, '["us", 1]', "a!", undefined],
    ]);
  });

  test("inheritance children keep their own columns", async () => {
    await using database = await open();
    await tracking(
      database,
      `
      create table todos (id int primary key, task text);
      create table urgent_todos (due date, primary key (id)) inherits (todos)`,
      "todos",
    );
    await database.port.execute(`
      insert into todos values (1, 'a'); insert into urgent_todos values (2, 'b', '2026-01-01');
      update todos set task = upper(task);
      delete from todos`);
    expect((await seen(database.port)).map((c) => [c.operation, c.table, c.key, c.after.due ?? c.before.due]))
      .toEqual([
        ["CREATE", "todos", "1", undefined],
        ["CREATE", "urgent_todos", "2", "2026-01-01"],
        ["UPDATE", "todos", "1", undefined],
        ["UPDATE", "urgent_todos", "2", "2026-01-01"],
        ["DELETE", "todos", "1", undefined],
        ["DELETE", "urgent_todos", "2", "2026-01-01"],
      ]);
  });

  test("session_replication_role switches nothing off for partitions, attached later ones included", async () => {
    await using database = await open();
    const { port } = database;
    await tracking(
      database,
      `create table parts (id int primary key, twice int generated always as (id * 2) stored) partition by range (id);
      create table parts_low partition of parts for values from (0) to (10)`,
      "parts",
    );
    await port.execute("create table parts_high partition of parts for values from (10) to (20)");
    await port.transaction((tx) =>
      tx.execute("set local session_replication_role = replica; insert into parts values (1), (11)")
    );
    expect(await story(port)).toEqual(["CREATE parts 1", "CREATE parts 11"]);
  });

  test("a statement of megabytes is cut in each change", async () => {
    await using database = await open();
    await tracking(
      database,
      `create table todos (id int primary key, task text);
      create function f() returns trigger language plpgsql as 'begin return null; end';
      create trigger t after insert on todos for each row execute function f()`,
      "todos",
    );
    const values = Array.from({ length: 5000 }, (_, i) => `(${i}, '${"x".repeat(400)}')`).join(",");
    await database.port.execute(`insert into todos values ${values}`);
    const changes = await seen(database.port);
    expect(changes).toHaveLength(5000);
    expect(String(changes[4999]?.context.SQL)).toHaveLength(1000);
  });
});
