import type { AddressInfo } from "node:net";
import { initTRPC } from "@trpc/server";
import { fetchRequestHandler } from "@trpc/server/adapters/fetch";
import express, { type Express } from "express";
import pg from "pg";
import { describe, expect, test } from "vitest";
import { currentContext, withContext } from "../mod.ts";
import { withBemi } from "../src/adapters/pg.ts";
import { bemi } from "../src/middleware/express.ts";
import { onEachServer, type TestDatabase } from "./support/databases.ts";
import { install, track } from "./support/installation.ts";
import { seen, TODOS } from "./support/todos.ts";
// @ts-expect-error the same package in its former version, which has no types of its own
import express4 from "express-4";

const INSERT = "insert into todos (task) values ($1)";

async function setUp(open: () => Promise<TestDatabase & { url: string }>): Promise<
  { database: TestDatabase; pool: pg.Pool } & AsyncDisposable
> {
  const database = await open();
  await install(database.db);
  await database.port.execute(TODOS);
  await track(database.db, "todos");
  const pool = withBemi(new pg.Pool({ connectionString: database.url, max: 3 }));
  return {
    database,
    pool,
    [Symbol.asyncDispose]: async () => {
      await pool.end();
      await database[Symbol.asyncDispose]();
    },
  };
}

async function listen(app: Express): Promise<{ url: string } & Disposable> {
  const server = app.listen(0, "127.0.0.1");
  await new Promise((done) => server.once("listening", done));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    [Symbol.dispose]: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}

const own = ({ db: _, SQL: __, ...context }: Record<string, unknown>): Record<string, unknown> => context;

onEachServer("requests", (open) => {
  describe.each([["Express 5", express], ["Express 4", express4 as typeof express]])(
    "to %s",
    (_name, make) => {
      test("carry what the middleware says of them, asked after authentication", async () => {
        await using setup = await setUp(open);
        const { pool, database } = setup;
        const app = make();
        app.use(bemi((request: express.Request & { user?: number }) => ({
          user_id: request.user,
          method: request.method,
          endpoint: request.path,
        })));
        app.use(express.json());
        app.use((request, _response, next) => {
          setTimeout(() => {
            Object.assign(request, { user: Number(request.headers["x-user"]) });
            next();
          }, Math.random() * 5);
        });
        app.post("/todos", (request, response, next) => {
          pool.query(INSERT, [request.body.task], (error) => {
            if (error) return next(error);
            pool.query("update todos set is_completed = true where task = $1", [request.body.task])
              .then(() => response.send("created"), next);
          });
        });
        app.post("/broken", (_request, _response, next) => {
          pool.query("insert into todos (nothing) values (1)").catch(next);
        });
        app.use(
          (_error: unknown, _request: express.Request, response: express.Response, _next: () => void) => {
            response.status(500).send(String(JSON.stringify(currentContext())));
          },
        );
        using server = await listen(app);
        const post = (path: string, user: number): Promise<string> =>
          fetch(server.url + path, {
            method: "POST",
            headers: {
              "content-type": "application/json",
              "x-user": String(user),
              "x-request-id": `r${user}`,
            },
            body: JSON.stringify({ task: `t${user}` }),
          }).then((response) => response.text());
        const answers = await Promise.all(
          Array.from({ length: 40 }, (_, user) => post(user % 4 ? "/todos" : "/broken", user)),
        );
        expect(answers[1]).toBe("created");
        expect(JSON.parse(answers[0] ?? "")).toMatchObject({ user_id: 0, request_id: "r0" });
        const changes = await seen(database.port);
        expect(changes).toHaveLength(60);
        for (const { after, context } of changes) {
          const user = Number(String(after.task).slice(1));
          expect(own(context)).toEqual({
            user_id: user,
            request_id: `r${user}`,
            method: "POST",
            endpoint: "/todos",
          });
        }
      });
    },
  );

  test("have their context in the events of the request and its response too", async () => {
    const app = express();
    const heard: unknown[] = [];
    app.use(bemi((request: express.Request) => ({ endpoint: request.path })));
    app.post("/upload", (request, response) => {
      const note = (name: string) => () => void heard.push([name, currentContext()]);
      request.once("data", note("data")).on("end", note("end")).on("end", () => response.send("ok"));
      response.on("finish", note("finish")).on("close", note("close"));
    });
    using server = await listen(app);
    await fetch(`${server.url}/upload`, { method: "POST", body: "a".repeat(100_000) });
    const context = { endpoint: "/upload" };
    await expect.poll(() => heard).toEqual(
      ["data", "end", "finish", "close"].map((name) => [name, context]),
    );
  });

  test("to tRPC: a middleware of three lines", async () => {
    await using setup = await setUp(open);
    const { pool, database } = setup;
    const t = initTRPC.context<{ user: number }>().create();
    const procedure = t.procedure.use(({ ctx, path, type, next }) =>
      withContext({ user_id: ctx.user, procedure: path, type }, () => next())
    );
    const router = t.router({
      todos: {
        add: procedure.input((value) => String(value)).mutation(async ({ input }) => {
          await pool.query(INSERT, [input]);
          return input.length;
        }),
        break: procedure.mutation(async () => {
          await pool.query("insert into todos (nothing) values (1)");
        }),
      },
    });
    const call = async (path: string, user: number, input: string): Promise<unknown> => {
      const request = new Request(`http://localhost/trpc/${path}`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(input),
      });
      const createContext = (): { user: number } => ({ user });
      const response = await fetchRequestHandler({ endpoint: "/trpc", req: request, router, createContext });
      return await response.json();
    };
    const answers = await Promise.all([
      ...[1, 2, 3, 4].map((user) => call("todos.add", user, `t${user}`)),
      call("todos.break", 5, ""),
    ]);
    expect(answers[0]).toEqual({ result: { data: 2 } });
    expect(answers[4]).toHaveProperty("error");
    const changes = await seen(database.port);
    expect(changes.map(({ after, context }) => [after.task, own(context)]).sort()).toEqual(
      [1, 2, 3, 4].map((user) => [`t${user}`, { user_id: user, procedure: "todos.add", type: "mutation" }]),
    );
  });
});
