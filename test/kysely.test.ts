import { type Generated, Kysely, PGliteDialect, PostgresDialect, sql, type Transaction } from "kysely";
import pg from "pg";
import Cursor from "pg-cursor";
import { describe, expect, test } from "vitest";
import { mergeContext, withContext } from "../mod.ts";
import { withBemi } from "../src/adapters/kysely.ts";
import { withBemi as withBemiForPg } from "../src/adapters/pg.ts";
import { withBemi as withBemiForPglite } from "../src/adapters/pglite.ts";
import { onEachServer, onPglite, type TestDatabase } from "./support/databases.ts";
import { install, track } from "./support/installation.ts";
import { expectIsolation } from "./support/isolation.ts";
import type { RequestClient, Writer } from "./support/requests.ts";
import { seen, TODOS } from "./support/todos.ts";

interface Tables {
  todos: { id: Generated<string>; task: string; is_completed: Generated<boolean> };
}

const as = <R>(user_id: number | string, fn: () => R): Promise<Awaited<R>> => withContext({ user_id }, fn);

function behaves<T extends TestDatabase>(
  open: () => Promise<T>,
  connect: (database: T) => Kysely<Tables>,
): void {
  const setUp = async (): Promise<{ database: T; db: Kysely<Tables> } & AsyncDisposable> => {
    const database = await open();
    await install(database.db);
    await database.port.execute(TODOS);
    await track(database.db, "todos");
    const db = connect(database);
    return {
      database,
      db,
      [Symbol.asyncDispose]: async () => {
        if (database.url) await db.destroy();
        await database[Symbol.asyncDispose]();
      },
    };
  };
  const story = async ({ port }: TestDatabase): Promise<string[]> =>
    (await seen(port)).map(({ before, after, context }) =>
      `${after.task ?? before.task} ${context.user_id ?? "-"}`
    );

  test("every kind of write carries the context in force when it is executed", async () => {
    await using setup = await setUp();
    const { db, database } = setup;
    await as(1, async () => {
      const a = await db.insertInto("todos").values({ task: "a" }).returning("task").executeTakeFirst();
      expect(a).toEqual({ task: "a" });
      const updated = await db.updateTable("todos").set({ task: "b" }).where("task", "=", "a")
        .executeTakeFirst();
      expect(updated.numUpdatedRows).toBe(1n);
      await sql`insert into todos (task) values (${"c"})`.execute(db);
      const deleted = await db.with(
        "gone",
        (qb) => qb.deleteFrom("todos").where("task", "=", "c").returning("task"),
      )
        .selectFrom("gone").select("task").execute();
      expect(deleted).toEqual([{ task: "c" }]);
    });
    // A builder is no promise: what it is made in does not matter, what it is executed in does.
    const lazy = await as(2, () => ({ query: db.insertInto("todos").values({ task: "lazy" }) }));
    await as(3, () => lazy.query.execute());
    await lazy.query.execute();
    expect(await story(database)).toEqual(["a 1", "b 1", "c 1", "c 1", "lazy 3", "lazy -"]);
  });

  test("transactions, savepoints and failures have the context in force", async () => {
    await using setup = await setUp();
    const { db, database } = setup;
    const add = (tx: Kysely<Tables>, task: string) => tx.insertInto("todos").values({ task }).execute();
    await as(1, async () => {
      await db.transaction().execute(async (tx) => {
        await add(tx, "a");
        mergeContext({ user_id: 2 });
        await add(tx, "b");
      });
      const tx = await db.startTransaction().execute();
      await add(tx, "c");
      const inner = await tx.savepoint("inner_one").execute();
      mergeContext({ user_id: 3 });
      await add(inner, "lost");
      await inner.rollbackToSavepoint("inner_one").execute();
      await add(tx, "d");
      await tx.commit().execute();
      await expect(
        db.transaction().execute(async (tx) => {
          await add(tx, "never");
          throw new Error("changed my mind");
        }),
      ).rejects.toThrow("changed my mind");
      await expect(sql`insert into todos (nothing) values (1)`.execute(db)).rejects.toThrow(/nothing/);
      await add(db, "e");
    });
    await add(db, "f");
    expect(await story(database)).toEqual(["a 1", "b 2", "c 2", "d 3", "e 3", "f -"]);
  });
}

function requests(db: Kysely<Tables>): RequestClient {
  const writer = (db: Kysely<Tables> | Transaction<Tables>): Writer => ({
    insert: (task) => db.insertInto("todos").values({ task }).execute(),
    complete: (task) =>
      db.updateTable("todos").set({ is_completed: true }).where("task", "=", task).execute(),
  });
  return {
    ...writer(db),
    refused: (task) => sql`insert into todos (task, nothing) values (${task}, 1)`.execute(db),
    transaction: (fn) => db.transaction().execute((tx) => fn(writer(tx))),
  };
}

onEachServer("kysely", (open) => {
  const pool = (url: string): pg.Pool => new pg.Pool({ connectionString: url, max: 4 });
  const over = (pool: pg.Pool): Kysely<Tables> =>
    new Kysely<Tables>({ dialect: new PostgresDialect({ pool, cursor: Cursor }) });
  describe.each([
    ["over a wrapped pg Pool", ({ url }: { url: string }) => over(withBemiForPg(pool(url)))],
    ["wrapped itself", ({ url }: { url: string }) => withBemi(over(pool(url)))],
  ])("%s", (_, connect) => {
    behaves(open, connect);

    test("300 overlapping requests, half of them failing, never mix", async () => {
      await using database = await open();
      await install(database.db);
      await database.port.execute(TODOS);
      await track(database.db, "todos");
      const db = connect(database);
      await expectIsolation(database, requests(db));
      await as(1, async () => {
        const tasks: string[] = [];
        const written = db.insertInto("todos").values([{ task: "s1" }, { task: "s2" }]).returning("task")
          .stream(1);
        for await (const { task } of written) tasks.push(task);
        expect(tasks).toEqual(["s1", "s2"]);
      });
      const last = (await seen(database.port)).slice(-2);
      expect(last.map(({ after, context }) => [after.task, context.user_id])).toEqual([["s1", 1], ["s2", 1]]);
      await db.destroy();
    });
  });

  test("wrapped itself, whatever ends a statement, in SQL, and for functions where it is told so", async () => {
    await using database = await open();
    await install(database.db);
    await database.port.execute(TODOS);
    await database.port.execute(
      "create function add_todo(task text) returns void language sql as $$ insert into todos (task) values (task) $$",
    );
    await track(database.db, "todos");
    const db = over(pool(database.url));
    const wrapped = withBemi(db);
    await as("*/ drop table todos; -- ? $1 ë", async () => {
      await wrapped.insertInto("todos").values({ task: "a" }).modifyEnd(sql`-- mine`).execute();
      await wrapped.with("gone", (qb) => qb.deleteFrom("todos").where("task", "=", "a").returning("id"))
        .selectFrom("todos").selectAll().where("id", "in", sql<string>`(select id from gone)`)
        .orderBy("id").forUpdate().execute();
      await sql`with gone as (${wrapped.selectFrom("todos").select("id")}) insert into todos (task)
        select 'b' from (values (1)) x where not exists (select from gone)`.execute(wrapped);
      await sql`with gone as (${
        wrapped.deleteFrom("todos").where("task", "=", "b").returning("id")
      }) select from gone`.execute(wrapped);
      await sql`select add_todo(${"c"})`.execute(withBemi(db, { wrap: "all" }));
      await withBemi(db, { wrap: "all" }).selectNoFrom(sql`add_todo(${"d"})`.as("e")).execute();
      await wrapped.selectNoFrom(sql`add_todo(${"e"})`.as("e")).execute();
    });
    const user = "*/ drop table todos; -- ? $1 ë";
    expect((await seen(database.port)).map(({ before, after, context }) => [
      after.task ?? before.task,
      context.user_id ?? "-",
    ])).toEqual([["a", user], ["a", user], ["b", user], ["b", user], ["c", user], ["d", user], ["e", "-"]]);
    await db.destroy();
  });
});

onPglite(
  "kysely over a wrapped PGlite",
  (open) =>
    behaves(
      open,
      ({ db }) => new Kysely<Tables>({ dialect: new PGliteDialect({ pglite: withBemiForPglite(db) }) }),
    ),
);
