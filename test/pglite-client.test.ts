import type { PGlite } from "@electric-sql/pglite";
import { describe, expect, test } from "vitest";
import { mergeContext, withContext } from "../mod.ts";
import { onWarning } from "../src/context/warn.ts";
import { withBemi } from "../src/adapters/pglite.ts";
import { statementKind } from "../src/adapters/statement-kind.ts";
import { install, track } from "./support/installation.ts";
import { onPglite, type TestDatabase } from "./support/databases.ts";
import { seen, TODOS } from "./support/todos.ts";

onWarning(() => {});

async function todos(database: TestDatabase & { db: PGlite }): Promise<PGlite> {
  await install(database.db);
  await database.port.execute(TODOS);
  await track(database.db, "todos");
  return withBemi(database.db);
}

/** The user of each change, in order. */
async function users(database: TestDatabase): Promise<unknown[]> {
  return (await seen(database.port)).map((change) => change.context.user_id ?? null);
}

const INSERT = "insert into todos (task) values ($1) returning id";

onPglite("withBemi for PGlite", (open) => {
  test("query, sql and exec carry the context, and give what they gave", async () => {
    await using database = await open();
    const db = await todos(database);
    await withContext({ user_id: 1 }, async () => {
      expect((await db.query<{ id: number }>(INSERT, ["a"])).rows).toEqual([{ id: 1 }]);
      expect((await db.sql<{ id: number }>`insert into todos (task) values (${"b"}) returning id`).rows)
        .toEqual([{ id: 2 }]);
      const results = await db.exec("insert into todos (task) values ('c'); select 1 as one");
      expect(results.map((result) => result.rows)).toEqual([[], [{ one: 1 }]]);
    });
    await db.query(INSERT, ["outside"]);
    expect(await users(database)).toEqual([1, 1, 1, null]);
  });

  test("a lazy call without async or await runs inside", async () => {
    await using database = await open();
    const db = await todos(database);
    await withContext({ user_id: 1 }, () => db.query(INSERT, ["a"]));
    expect(await users(database)).toEqual([1]);
  });

  test("in a transaction each statement has the context in force when it began", async () => {
    await using database = await open();
    const db = await todos(database);
    await withContext({ user_id: 1 }, () =>
      db.transaction(async (tx) => {
        await tx.query(INSERT, ["a"]);
        mergeContext({ user_id: 2 });
        await tx.sql`insert into todos (task) values ('b')`;
        await withContext({ user_id: 3 }, () => tx.exec("insert into todos (task) values ('c')"));
        await tx.query(INSERT, ["d"]);
        await withContext({}, () => tx.query(INSERT, ["e"]), { mode: "replace" });
      }));
    await db.transaction((tx) => tx.query(INSERT, ["outside"]));
    expect(await users(database)).toEqual([1, 2, 3, 2, null, null]);
  });

  test("statements of a transaction that are not awaited keep their order, and each its context", async () => {
    await using database = await open();
    const db = await todos(database);
    await withContext({ user_id: 1 }, () =>
      db.transaction(async (tx) => {
        const asked = [
          tx.query(INSERT, ["a"]),
          tx.exec("insert into todos (task) values ('b')"),
          withContext({ user_id: 2 }, () => tx.query(INSERT, ["c"])),
          tx.sql`insert into todos (task) values ('d')`,
        ];
        await Promise.all(asked);
      }));
    expect((await seen(database.port)).map((c) => c.after.task)).toEqual(["a", "b", "c", "d"]);
    expect(await users(database)).toEqual([1, 1, 2, 1]);
  });

  test("a context left behind in a transaction is cleared for what follows", async () => {
    await using database = await open();
    const db = await todos(database);
    await db.transaction(async (tx) => {
      await withContext({ user_id: 1 }, () => tx.query(INSERT, ["a"]));
      await tx.query(INSERT, ["b"]);
    });
    expect(await users(database)).toEqual([1, null]);
  });

  test("savepoints: rolled back, the context is set again", async () => {
    await using database = await open();
    const db = await todos(database);
    await withContext({ user_id: 1 }, () =>
      db.transaction(async (tx) => {
        await tx.exec("savepoint s");
        await tx.query(INSERT, ["lost"]);
        await tx.exec("rollback to savepoint s");
        await tx.query(INSERT, ["kept"]);
        await tx.exec("savepoint t");
        await expect(tx.query("insert into todos (id, task) values (2, null)")).rejects.toMatchObject({
          code: "23502",
        });
        await tx.exec("rollback to t");
        await tx.query(INSERT, ["kept too"]);
      }));
    expect(await users(database)).toEqual([1, 1]);
  });

  test("db.query within db.transaction joins it instead of blocking forever, and so does a nested transaction", async () => {
    await using database = await open();
    const db = await todos(database);
    await withContext({ user_id: 1 }, () =>
      db.transaction(async (tx) => {
        await tx.query(INSERT, ["a"]);
        await db.query(INSERT, ["b"]);
        await expect(db.transaction(async (inner) => {
          await inner.query(INSERT, ["lost"]);
          throw new Error("no");
        })).rejects.toThrow("no");
        await db.transaction((inner) => inner.query(INSERT, ["c"]));
      }));
    expect((await seen(database.port)).map((c) => c.after.task)).toEqual(["a", "b", "c"]);
    expect(await users(database)).toEqual([1, 1, 1]);
  });

  test("overlapping requests: each change has its own request's context", async () => {
    await using database = await open();
    const db = await todos(database);
    await Promise.all(Array.from({ length: 60 }, (_, user) =>
      withContext({ user_id: user }, async () => {
        await new Promise((done) => setTimeout(done, Math.random() * 20));
        if (user % 3 === 0) await db.query(INSERT, [`${user}`]);
        else if (user % 3 === 1) await db.transaction((tx) => tx.query(INSERT, [`${user}`]));
        else await db.query("insert into todos (task) values (null)").catch(() => {});
      })));
    const changes = await seen(database.port);
    expect(changes).toHaveLength(40);
    for (const change of changes) expect(String(change.context.user_id)).toBe(change.after.task);
  });

  test("a function that writes needs wrap: all; what cannot run in a transaction runs without", async () => {
    await using database = await open();
    const db = await todos(database);
    await db.exec(
      "create function add_todo() returns void language sql as $$ insert into todos (task) values ('f') $$",
    );
    await withContext({ user_id: 1 }, async () => {
      await db.query("select add_todo()");
      await withBemi(database.db, { wrap: "all" }).query("select add_todo()");
      await withBemi(database.db, { wrap: "all" }).query("vacuum todos");
      await withBemi(database.db, { wrap: "all" }).query("create index concurrently on todos (task)");
      await db.exec(
        "create procedure p() language plpgsql as $$ begin insert into todos (task) values ('p'); commit; end $$",
      );
      await db.query("call p()");
    });
    expect(await users(database)).toEqual([null, 1, null]);
  });

  test("everything else is PGlite's own", async () => {
    await using database = await open();
    const db = withBemi(database.db);
    expect(db.ready).toBe(true);
    const heard: string[] = [];
    const stop = await db.listen("todos", (payload) => heard.push(payload));
    await db.query("notify todos, 'hello'");
    await stop();
    expect(heard).toEqual(["hello"]);
  });
});

describe("the words of a statement", () => {
  test.each([
    ["insert into todos values (1)", true],
    ["/* insert */ select 'update', \"delete\", $$truncate$$, E'\\' insert ', $a$merge$a$ -- call", false],
    ["with gone as (delete from todos returning *) select * from gone", true],
    ["select * from todos for update", false],
    ["select * from todos for no key update skip locked", false],
    ["select 1 into backup from todos", true],
    ["copy todos from stdin", true],
    ["copy todos to stdout", false],
    ["CALL close_day()", true],
    ["do $$ begin end $$", true],
    ["explain analyze update todos set task = ''", true],
    ["select '/*' , 'insert' , '*/'", false],
    ["select inserted, updates from todos", false],
    ["select 'it''s' || 'insert'", false],
    ["select E'it''s \\' insert ', \"a\"\"insert\"", false],
  ])("%s", (sql, writes) => expect(statementKind(sql).writes).toBe(writes));

  test.each([
    ["text", (n: number) => `'${"x".repeat(n)}'`],
    ["quotes", (n: number) => `'${"''".repeat(n)}'`],
    ["escapes", (n: number) => `E'${"\\n".repeat(n)}'`],
  ])("are found beside megabytes of %s", (_, literal) => {
    expect(statementKind(`insert into todos values (${literal(10_000_000)})`).writes).toBe(true);
  });

  test.each(["begin", " COMMIT", "select 1; rollback", "vacuum todos", "/* hi */ set role x", "savepoint a"])(
    "%s steers the transaction",
    (sql) => expect(statementKind(sql).controls).toBe(true),
  );
});
