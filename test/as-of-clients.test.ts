import type { PGlite } from "@electric-sql/pglite";
import { desc, eq } from "drizzle-orm";
import { drizzle as nodePostgres } from "drizzle-orm/node-postgres";
import { drizzle as pgliteDrizzle } from "drizzle-orm/pglite";
import { drizzle as postgresJs } from "drizzle-orm/postgres-js";
import { bigint, boolean, pgTable, text } from "drizzle-orm/pg-core";
import { Kysely, PostgresDialect } from "kysely";
import pg from "pg";
import type postgres from "postgres";
import { describe, expect, test } from "vitest";
import { withBemi } from "../src/adapters/postgres.ts";
import type { DatabaseLike } from "../src/database/port.ts";
import { asOf } from "../src/history/mod.ts";
import { onEachServer, onPglite, type TestDatabase } from "./support/databases.ts";
import { install, SCHEMA as schema, track } from "./support/installation.ts";
import { clock } from "./support/moments.ts";
import { TODOS } from "./support/todos.ts";

const todos = pgTable("todos", {
  id: bigint({ mode: "number" }).primaryKey(),
  task: text().notNull(),
  is_completed: boolean().notNull(),
});

type Drizzle = ReturnType<typeof nodePostgres>;

/** The application's own, which knows nothing of the past. */
const openTodos = (db: Drizzle): Promise<{ task: string }[]> =>
  db.select({ task: todos.task }).from(todos).where(eq(todos.is_completed, false)).orderBy(desc(todos.id));

interface Tables {
  todos: { id: string; task: string; is_completed: boolean };
}

const openTodosByKysely = (db: Kysely<Tables>): Promise<{ task: string }[]> =>
  db.selectFrom("todos").select("task").where("is_completed", "=", false).orderBy("id", "desc").execute();

const THEN = [{ task: "Eat" }, { task: "Sleep" }];
const NOW = [{ task: "Repeat" }, { task: "Eat" }];

async function past(database: TestDatabase): Promise<string> {
  const { db, port } = database;
  await install(db);
  await port.execute(TODOS);
  await track(db, "todos");
  await port.execute("create view open_todos as select * from todos where not is_completed");
  await port.execute("insert into todos (task) values ('Sleep'), ('Eat')");
  const time = await clock(port);
  await port.execute(
    "update todos set is_completed = true where id = 1; insert into todos (task) values ('Repeat')",
  );
  return time;
}

/** What any client has to show: its own query in the past, a refused write, nothing left behind after an error. */
async function behaves<Client extends Parameters<typeof asOf>[0]>(
  client: Client,
  time: string,
  run: (client: Client, sql: string) => PromiseLike<readonly object[]>,
): Promise<void> {
  const query = "select task from todos where not is_completed order by id desc";
  const state = (): PromiseLike<readonly object[]> =>
    run(
      client,
      "select current_setting('transaction_read_only') as ro, to_regclass('pg_temp.todos')::text as t, current_setting('search_path') as path",
    );
  const before = await state();
  expect(before).toMatchObject([{ ro: "off", t: null }]);
  const refused = async (fn: (past: Client) => PromiseLike<unknown>, error: object): Promise<void> => {
    await expect(asOf(client, time, fn, { schema })).rejects.toMatchObject(error);
    expect(await run(client, query)).toEqual(NOW);
    expect(await state()).toEqual(before);
  };
  expect(await asOf(client, time, (past) => run(past, query), { schema })).toEqual(THEN);
  expect(await run(client, query)).toEqual(NOW);
  for (
    const write of [
      "insert into todos (id, task) values (9, 'no')",
      "update public.todos set task = 'no'",
      "delete from todos",
      "truncate todos",
      "create table other (id int)",
    ]
  ) {
    await refused((past) => run(past, write), { code: "25006" });
  }
  await refused((past) => run(past, "select 1 / 0"), { code: "22012" });
  // The present is not taken for the past.
  for (const present of ["public.todos", "public.todos where id = 1", "open_todos"]) {
    await refused((past) => run(past, `select task from ${present}`), {
      code: "usage",
      message: "A query in the past read public.todos as it is now",
    });
  }
  const both =
    "select old.task from todos old join public.todos new using (id) where new.is_completed and not old.is_completed";
  expect(await asOf(client, time, (past) => run(past, both), { schema, readsPresent: true })).toEqual([
    { task: "Sleep" },
  ]);
  // What the application deals with is its own.
  const dealtWith = asOf(client, time, (past) => run(past, "select 1 / 0").then(() => "", () => "none"), {
    schema,
  });
  expect(await dealtWith.catch((error: { code: string }) => error.code)).toMatch(/^(?:none|22012|25P02)$/);
  await refused(() => Promise.reject(new Error("the application's own")), {
    message: "the application's own",
  });
  await expect(asOf(client, "2020-01-01", (past) => run(past, query), { schema })).rejects.toMatchObject({
    code: "history_unknown",
  });
  expect(await asOf(client, time, (past) => run(past, query), { schema })).toEqual(THEN);
}

onEachServer("the application's queries in the past", (open) => {
  describe("through pg", () => {
    const query = async (client: pg.Pool | pg.Client, sql: string): Promise<object[]> =>
      (await client.query(sql)).rows as object[];

    test("a Pool, which gets its connection back", async () => {
      await using database = await open();
      const time = await past(database);
      const pool = new pg.Pool({ connectionString: database.url, max: 1 });
      try {
        await behaves(pool, time, query);
        expect(pool).toMatchObject({ totalCount: pool.idleCount, waitingCount: 0 });
      } finally {
        await pool.end();
      }
    });

    test("a Client", async () => {
      await using database = await open();
      const time = await past(database);
      const client = new pg.Client({ connectionString: database.url });
      await client.connect();
      try {
        await behaves(client, time, query);
      } finally {
        await client.end();
      }
    });

    test("drizzle-orm and Kysely over it", async () => {
      await using database = await open();
      const time = await past(database);
      const pool = new pg.Pool({ connectionString: database.url, max: 1 });
      try {
        expect(await asOf(pool, time, (past) => openTodos(nodePostgres(past)), { schema })).toEqual(THEN);
        expect(await openTodos(nodePostgres(pool))).toEqual(NOW);
        // A pool of the one connection that is in the past.
        const kysely = (client: pg.Pool | pg.Client): Kysely<Tables> =>
          new Kysely({
            dialect: new PostgresDialect({
              pool: {
                connect: () => Promise.resolve({ query: client.query.bind(client) as never, release() {} }),
                end: () => Promise.resolve(),
                options: {},
              },
            }),
          });
        expect(await asOf(pool, time, (past) => openTodosByKysely(kysely(past)), { schema })).toEqual(THEN);
        expect(await openTodosByKysely(kysely(pool))).toEqual(NOW);
        await expect(asOf(pool, time, (past) => nodePostgres(past).delete(todos), { schema })).rejects
          .toMatchObject({ cause: { code: "25006" } });
        expect(await openTodos(nodePostgres(pool))).toEqual(NOW);
      } finally {
        await pool.end();
      }
    });
  });

  test("through postgres.js, and drizzle-orm over it", async () => {
    await using database = await open();
    const time = await past(database);
    const sql = database.connect({ max: 1 });
    await behaves<postgres.Sql>(sql, time, async (client, text) => [...await client.unsafe(text)]);
    const inPast = (past: postgres.Sql): Drizzle =>
      postgresJs(Object.assign(past, { options: sql.options })) as never;
    expect(await asOf(sql, time, (past) => openTodos(inPast(past)), { schema })).toEqual(THEN);
    expect(await openTodos(postgresJs(sql) as never)).toEqual(NOW);
  });
});

onEachServer("a table whose columns change while a client goes on reading it", (open) => {
  test.each(["postgres.js", "withBemi", "pg"])("through %s, in and out of transactions", async (kind) => {
    await using database = await open();
    const { port } = database;
    const time = await past(database);
    const pool = new pg.Pool({ connectionString: database.url, max: 1 });
    const sql = database.connect({ max: 1 });
    const client = kind === "pg" ? pool : kind === "postgres.js" ? sql : withBemi(sql);
    const read = async (db: DatabaseLike): Promise<string[][]> =>
      (await asOf<object>(db, "todos", time, { schema, key: "1" })).map((row) => Object.keys(row));
    const inTransaction = (): Promise<string[][]> =>
      kind === "pg" ? read(pool) : (client as postgres.Sql).begin((tx) => read(tx)) as Promise<string[][]>;
    try {
      const columns = await read(client);
      for (const [column, readThen] of [["one", () => read(client)], ["two", inTransaction]] as const) {
        expect(await read(client)).toEqual(columns);
        await port.execute(`alter table todos add column ${column} int`);
        columns[0]?.push(column);
        expect(await readThen()).toEqual(columns);
      }
    } finally {
      await pool.end();
    }
  });
});

onPglite("the application's queries in the past, in PGlite", (open) => {
  test("and drizzle-orm over it", async () => {
    await using database = await open();
    const time = await past(database);
    await behaves<PGlite>(database.db, time, async (client, sql) => (await client.query<object>(sql)).rows);
    expect(await asOf(database.db, time, (past) => openTodos(pgliteDrizzle(past) as never), { schema }))
      .toEqual(THEN);
    expect(await openTodos(pgliteDrizzle(database.db) as never)).toEqual(NOW);
  });
});
