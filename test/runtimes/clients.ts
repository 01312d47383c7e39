import { currentContext, withContext } from "@bemi/core";
import { withBemi as withBemiForDrizzle } from "@bemi/core/drizzle";
import { changes } from "@bemi/core/history";
import { withBemi as withBemiForKysely } from "@bemi/core/kysely";
import { withBemi as withBemiForPg } from "@bemi/core/pg";
import { withBemi as withBemiForPostgres } from "@bemi/core/postgres";
import { eq, sql } from "drizzle-orm";
import { drizzle } from "drizzle-orm/node-postgres";
import { drizzle as drizzleOnPostgres } from "drizzle-orm/postgres-js";
import { boolean, pgTable, text } from "drizzle-orm/pg-core";
import { Kysely, PostgresDialect } from "kysely";
import { deepStrictEqual } from "node:assert/strict";
import pg from "pg";
import Cursor from "pg-cursor";
import QueryStream from "pg-query-stream";
import postgres from "postgres";
import {
  expectedChanges,
  OUTCOME,
  overlappingRequests,
  overPool,
  type RequestClient,
  type Writer,
} from "../support/requests.ts";
import type { AddTest, Runtime } from "./add-tests.ts";
import { connect } from "./capture.ts";

interface Open {
  readonly client: RequestClient;
  end(): Promise<unknown>;
}

/** The clients that the README's table names for every runtime. */
const CLIENTS: { readonly [name: string]: (url: string) => Open } = {
  "postgres.js": (url) => {
    const sql = withBemiForPostgres(postgres(url, { max: 4, onnotice() {} }));
    const writer = (sql: postgres.Sql | postgres.TransactionSql): Writer => ({
      insert: (task) => sql`insert into todos (task) values (${task})`.execute(),
      complete: (task) => sql`update todos set is_completed = true where task = ${task}`.execute(),
    });
    return {
      client: {
        ...writer(sql),
        refused: (task) => sql.unsafe("insert into todos (task, nothing) values ($1, 1)", [task]).execute(),
        transaction: (fn) => sql.begin((tx) => fn(writer(tx))),
      },
      end: () => sql.end({ timeout: 1 }),
    };
  },
  pg: (url) => {
    const pool = withBemiForPg(new pg.Pool({ connectionString: url, max: 4 }));
    return {
      client: overPool(pool),
      end: () => pool.end(),
    };
  },
  "drizzle on pg": (url) => {
    const pool = withBemiForPg(new pg.Pool({ connectionString: url, max: 4 }));
    return { client: overDrizzle(drizzle({ client: pool })), end: () => pool.end() };
  },
  "drizzle on postgres.js": (url) => {
    const db = withBemiForDrizzle(drizzleOnPostgres({ connection: { url, max: 4, onnotice() {} } }));
    return {
      client: overDrizzle(db as unknown as ReturnType<typeof drizzle>),
      end: () => db.$client.end({ timeout: 1 }),
    };
  },
  "kysely on pg": (url) => {
    const pool = withBemiForPg(new pg.Pool({ connectionString: url, max: 4 }));
    const db = new Kysely<Tables>({ dialect: new PostgresDialect({ pool }) });
    return { client: overKysely(db), end: () => db.destroy() };
  },
  "kysely itself": (url) => {
    const pool = new pg.Pool({ connectionString: url, max: 4 });
    const db = withBemiForKysely(new Kysely<Tables>({ dialect: new PostgresDialect({ pool }) }));
    return { client: overKysely(db), end: () => db.destroy() };
  },
};

const todos = pgTable("todos", { task: text().notNull(), is_completed: boolean().notNull().default(false) });

export function overDrizzle(db: ReturnType<typeof drizzle>): RequestClient {
  const writer = (on: Pick<typeof db, "insert" | "update">): Writer => ({
    insert: async (task) => await on.insert(todos).values({ task }),
    complete: async (task) => await on.update(todos).set({ is_completed: true }).where(eq(todos.task, task)),
  });
  return {
    ...writer(db),
    refused: async (task) => await db.execute(sql`insert into todos (task, nothing) values (${task}, 1)`),
    transaction: (fn) => db.transaction((tx) => fn(writer(tx))),
  };
}

export interface Tables {
  readonly todos: { readonly task: string; readonly is_completed?: boolean };
}

export function overKysely(db: Kysely<Tables>): RequestClient {
  const writer = (on: typeof db): Writer => ({
    insert: (task) => on.insertInto("todos").values({ task }).execute(),
    complete: (task) =>
      on.updateTable("todos").set({ is_completed: true }).where("task", "=", task).execute(),
  });
  return {
    ...writer(db),
    refused: (task) => db.insertInto("todos").values({ task, nothing: 1 } as { task: string }).execute(),
    transaction: (fn) => db.transaction().execute((tx) => fn(writer(tx))),
  };
}

export function clientTests(test: AddTest, { url, schema }: Runtime): void {
  for (const [name, open] of Object.entries(CLIENTS)) {
    test(`300 overlapping requests through ${name}, half of them failing, never mix`, async () => {
      await using bare = connect(url);
      const { sql } = bare;
      await sql`delete from todos`;
      const [last] = await changes(sql, { schema, limit: 1 });
      const { client, end } = open(url);
      try {
        deepStrictEqual(await overlappingRequests(client, withContext), OUTCOME);
      } finally {
        await end();
      }
      const log = await changes(sql, { schema, table: "todos", page: { after: last?.cursor } });
      const told = log.map(({ operation, after, context }) =>
        `${operation} ${after.task} ${context.user_id ?? "-"}`
      );
      deepStrictEqual(told.sort(), expectedChanges());
    });
  }

  test("pg's cursors, streams and callbacks carry the context", async () => {
    await using bare = connect(url);
    const [last] = await changes(bare.sql, { schema, limit: 1 });
    const pool = withBemiForPg(new pg.Pool({ connectionString: url, max: 1 }));
    const client = await pool.connect();
    const insert = "insert into todos (task) values ($1) returning task";
    await withContext({ user_id: 1 }, async () => {
      const cursor = client.query(new Cursor(insert, ["cursor"]));
      deepStrictEqual(await cursor.read(10), [{ task: "cursor" }]);
      await cursor.close();
    });
    await withContext({ user_id: 2 }, async () => {
      const tasks: unknown[] = [];
      for await (const { task } of client.query(new QueryStream(insert, ["stream"]))) tasks.push(task);
      deepStrictEqual(tasks, ["stream"]);
    });
    await withContext({ user_id: 3 }, () =>
      new Promise<void>((done, fail) => {
        client.query(insert, ["callback"], (error: Error | null) => {
          if (error) return fail(error);
          deepStrictEqual(currentContext(), { user_id: 3 });
          done();
        });
      }));
    client.release();
    await pool.end();
    const log = await changes(bare.sql, { schema, page: { after: last?.cursor } });
    const told = log.map(({ after, context }) => `${after.task} ${context.user_id}`);
    deepStrictEqual(told, ["cursor 1", "stream 2", "callback 3"]);
  });
}
