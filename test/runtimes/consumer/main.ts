// A consumer of the packed package, type-checked and run under Node, Deno and Bun: overlapping requests through each
// client, on the databases that its one argument names. Prints how they ended.
import { PGlite } from "@electric-sql/pglite";
import { bemi, withBemi as withBemiForBun } from "@bemi/core/bun";
import { withBemi as withBemiForDrizzle } from "@bemi/core/drizzle";
import { bemi as expressMiddleware } from "@bemi/core/express";
import { bemi as fetchMiddleware } from "@bemi/core/fetch";
import { changes } from "@bemi/core/history";
import { bemi as honoMiddleware } from "@bemi/core/hono";
import { install, track } from "@bemi/core/install";
import { withBemi as withBemiForNeon } from "@bemi/core/neon";
import { withBemi as withBemiForPg } from "@bemi/core/pg";
import { withBemi as withBemiForPglite } from "@bemi/core/pglite";
import { withBemi as withBemiForPostgres } from "@bemi/core/postgres";
import { runWorker } from "@bemi/core/worker";
import { currentContext, withContext } from "@bemi/core";
import { eq, sql } from "drizzle-orm";
import { drizzle } from "drizzle-orm/node-postgres";
import { drizzle as drizzleOnPostgres } from "drizzle-orm/postgres-js";
import { boolean, pgTable, text } from "drizzle-orm/pg-core";
import express from "express";
import { Hono } from "hono";
import { Kysely, PostgresDialect } from "kysely";
import type { AddressInfo } from "node:net";
import process from "node:process";
import pg from "pg";
import postgres from "postgres";
import { overlappingRequests, type RequestClient, type Writer } from "./requests.js";

interface Open {
  readonly client: RequestClient;
  end(): Promise<unknown>;
}

const INSERT = "insert into todos (task) values ($1)";
const COMPLETE = "update todos set is_completed = true where task = $1";
const REFUSED = "insert into todos (task, nothing) values ($1, 1)";

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
        refused: (task) => sql.unsafe(REFUSED, [task]).execute(),
        transaction: (fn) => sql.begin((tx) => fn(writer(tx))),
      },
      end: () => sql.end({ timeout: 1 }),
    };
  },
  pg: (url) => {
    const pool = withBemiForPg(new pg.Pool({ connectionString: url, max: 4 }));
    const writer = (on: pg.Pool | pg.PoolClient): Writer => ({
      insert: (task) => on.query(INSERT, [task]),
      complete: (task) => on.query(COMPLETE, [task]),
    });
    const transaction = async (fn: (tx: Writer) => Promise<void>): Promise<void> => {
      const client = await pool.connect();
      try {
        await client.query("begin");
        await fn(writer(client));
        await client.query("commit");
      } catch (error) {
        await client.query("rollback");
        throw error;
      } finally {
        client.release();
      }
    };
    return {
      client: { ...writer(pool), refused: (task) => pool.query(REFUSED, [task]), transaction },
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
    const db = new Kysely<{ todos: { task: string; is_completed?: boolean } }>({
      dialect: new PostgresDialect({ pool }),
    });
    const writer = (on: typeof db): Writer => ({
      insert: (task) => on.insertInto("todos").values({ task }).execute(),
      complete: (task) =>
        on.updateTable("todos").set({ is_completed: true }).where("task", "=", task).execute(),
    });
    return {
      client: {
        ...writer(db),
        refused: (task) => db.insertInto("todos").values({ task, nothing: 1 } as { task: string }).execute(),
        transaction: (fn) => db.transaction().execute((tx) => fn(writer(tx))),
      },
      end: () => db.destroy(),
    };
  },
};

const todos = pgTable("todos", { task: text().notNull(), is_completed: boolean().notNull().default(false) });

function overDrizzle(db: ReturnType<typeof drizzle>): RequestClient {
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

/** Capture and reads, with no server at all. */
async function inPglite(): Promise<string[]> {
  const bare = await PGlite.create();
  await bare.exec(`create table todos (
    id bigint generated always as identity primary key, task text not null, is_completed boolean default false)`);
  await install(bare);
  await track(bare, "todos");
  const db = withBemiForPglite(bare);
  const writer = (on: Pick<typeof db, "query">): Writer => ({
    insert: (task) => on.query(INSERT, [task]),
    complete: (task) => on.query(COMPLETE, [task]),
  });
  await overlappingRequests({
    ...writer(db),
    refused: (task) => db.query(REFUSED, [task]),
    transaction: (fn) => db.transaction((tx) => fn(writer(tx))),
  }, withContext);
  const log = await changes(bare, { table: "todos", limit: 1000 });
  await bare.close();
  return log.map(({ operation, after, context }) => `${operation} ${after.task} ${context.user_id ?? "-"}`);
}

/** The context that a request to each middleware is in. */
async function middleware(): Promise<unknown[]> {
  const context = (request: { method: string }) => ({ method: request.method });
  const hono = new Hono();
  hono.use(honoMiddleware((c) => ({ method: c.req.method })));
  hono.get("/", (c) => c.json(currentContext()));
  const app = express();
  app.use(expressMiddleware(context));
  app.get("/", (_request, response) => void response.json(currentContext()));
  const server = app.listen(0, "127.0.0.1");
  await new Promise((done) => server.once("listening", done));
  const answer = () => Response.json(currentContext());
  const request = () => new Request("http://localhost/");
  const answers = await Promise.all([
    hono.fetch(request()),
    fetchMiddleware(answer, context)(request()),
    (bemi(answer, context) as unknown as (request: Request) => Promise<Response>)(request()),
    fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`),
  ]);
  server.close();
  return await Promise.all(answers.map((response) => response.json()));
}

const urls = JSON.parse(process.argv[2] ?? "{}") as Record<string, string>;
const results: Record<string, unknown> = {
  imports: [typeof withBemiForBun, typeof withBemiForNeon, typeof runWorker],
};
for (const [name, open] of Object.entries(CLIENTS)) {
  const url = urls[name];
  if (!url) continue;
  const { client, end } = open(url);
  results[name] = await overlappingRequests(client, withContext).catch((error: Error) => error.stack);
  await end();
}
results.PGlite = await inPglite();
results.middleware = await middleware();
console.log(JSON.stringify(results));
process.exit(0);
