import { neon, neonConfig, Pool } from "@neondatabase/serverless";
import { drizzle } from "drizzle-orm/neon-http";
import { pgTable, text } from "drizzle-orm/pg-core";
import { expect, test } from "vitest";
import { onWarning, withContext } from "../mod.ts";
import { withBemi as withBemiForDrizzle } from "../src/adapters/drizzle.ts";
import { withBemi } from "../src/adapters/neon.ts";
import { onEachServer, type TestDatabase } from "./support/databases.ts";
import { install, track } from "./support/installation.ts";
import { expectIsolation } from "./support/isolation.ts";
import { type NeonServer, startNeonServer } from "./support/neon-server.ts";
import { overPool } from "./support/requests.ts";
import { seen, TODOS } from "./support/todos.ts";

const warnings: string[] = [];
onWarning((message) => void warnings.push(message));

const as = <R>(user_id: number, fn: () => R): Promise<Awaited<R>> => withContext({ user_id }, fn);

onEachServer("withBemi for Neon's driver", (open) => {
  const setUp = async (): Promise<
    { database: TestDatabase; url: string; server: NeonServer; story(): Promise<string[]> } & AsyncDisposable
  > => {
    const database = await open();
    await install(database.db);
    await database.port.execute(TODOS);
    await track(database.db, "todos");
    const server = await startNeonServer(database.url);
    return {
      database,
      server,
      url: database.url.replace("postgres@", "postgres:secret@"),
      story: async () =>
        (await seen(database.port)).map(({ after, context }) => `${after.task} ${context.user_id ?? "-"}`),
      [Symbol.asyncDispose]: async () => {
        await server[Symbol.asyncDispose]();
        await database[Symbol.asyncDispose]();
      },
    };
  };

  test("over HTTP a write and its context are one request", async () => {
    await using setup = await setUp();
    const { server, story, database } = setup;
    const sql = withBemi(neon(setup.url));
    await as(1, async () => {
      expect(await sql`insert into todos (task) values (${"a"}) returning task`).toEqual([{ task: "a" }]);
      expect(server.requests()).toBe(1);
      const full = await sql.query("insert into todos (task) values ($1) returning task", ["b"], {
        fullResults: true,
        arrayMode: true,
      });
      expect([full.command, full.rowCount, full.rows]).toEqual(["INSERT", 1, [["b"]]]);
      expect(await sql`select ${1}::int as one`).toEqual([{ one: 1 }]);
      const columns = sql`(task)`;
      await sql`insert into todos ${columns} values (${"c"})`;
      await sql`${sql.unsafe("insert into")} todos (task) values (${"d"})`;
    });
    expect(server.requests()).toBe(5);
    const lazy = await as(2, () => ({ query: sql`insert into todos (task) values ('lazy')` }));
    await lazy.query;
    await sql`insert into todos (task) values ('outside')`;
    expect(await story()).toEqual(["a 1", "b 1", "c 1", "d 1", "lazy 2", "outside -"]);
    expect((await seen(database.port))[0]?.context.SQL).toBe(
      "insert into todos (task) values ($1) returning task",
    );
  });

  test("a query's own token and options go with its context", async () => {
    await using setup = await setUp();
    const tokens: (string | null)[] = [];
    neonConfig.fetchFunction = (url: string, init: RequestInit) => {
      tokens.push(new Headers(init.headers).get("authorization"));
      return fetch(url, init);
    };
    try {
      const sql = withBemi(neon(setup.url, { authToken: "client" }));
      const types = { getTypeParser: () => (text: string) => `parsed ${text}` };
      await as(1, async () => {
        await sql`insert into todos (task) values ('a')`;
        const [row] = await sql.query("insert into todos (task) values ('b') returning task", [], {
          authToken: () => "query",
          types: types as never,
        });
        expect(row).toEqual({ task: "parsed b" });
      });
      const db = withBemiForDrizzle(drizzle(neon(setup.url)));
      const table = pgTable("todos", { task: text() });
      await as(2, () => db.$withAuth("user").insert(table).values({ task: "c" }));
    } finally {
      neonConfig.fetchFunction = undefined;
    }
    expect(tokens).toEqual(["Bearer client", "Bearer query", "Bearer user"]);
    expect(await setup.story()).toEqual(["a 1", "b 1", "c 2"]);
  });

  test("a batch has the context of each of its queries, and gives only their results", async () => {
    await using setup = await setUp();
    const { story } = setup;
    const sql = withBemi(neon(setup.url));
    await as(1, async () => {
      const results = await sql.transaction([
        sql`select 1 as one`,
        sql`insert into todos (task) values ('a') returning task`,
      ], { isolationLevel: "Serializable" });
      expect(results).toEqual([[{ one: 1 }], [{ task: "a" }]]);
      await sql.transaction((tx) => [tx`insert into todos (task) values ('b')`]);
      await expect(sql.transaction([
        sql`insert into todos (task) values ('never')`,
        sql`insert into todos (nothing) values (1)`,
      ])).rejects.toMatchObject({ code: "42703" });
    });
    const { other } = await as(2, () => ({ other: sql`insert into todos (task) values ('c')` }));
    await sql.transaction([other, sql`insert into todos (task) values ('d')`]);
    expect(await story()).toEqual(["a 1", "b 1", "c 2", "d -"]);
  });

  test("what cannot run in a transaction runs once without, with a warning", async () => {
    await using setup = await setUp();
    const { story, database } = setup;
    await database.port.execute(`create procedure complete() language plpgsql as $$ begin
      insert into todos (task) values ('called'); commit; end $$`);
    const sql = withBemi(neon(setup.url));
    warnings.length = 0;
    await as(1, () => sql`call complete()`);
    await as(1, () => sql`vacuum todos`);
    expect(warnings).toHaveLength(1);
    expect(await story()).toEqual(["called -"]);
  });

  test("overlapping requests over HTTP never mix", async () => {
    await using setup = await setUp();
    const sql = withBemi(neon(setup.url));
    const queries = {
      insert: (task: string) => sql`insert into todos (task) values (${task})`,
      complete: (task: string) => sql`update todos set is_completed = true where task = ${task}`,
    };
    await expectIsolation(setup.database, {
      insert: async (task) => await queries.insert(task),
      complete: async (task) => await queries.complete(task),
      refused: async (task) => await sql`insert into todos (task, nothing) values (${task}, 1)`,
      transaction: async (fn) => {
        const batch: ReturnType<typeof sql>[] = [];
        const collect = (kind: keyof typeof queries) => (task: string) =>
          Promise.resolve(void batch.push(queries[kind](task)));
        await fn({ insert: collect("insert"), complete: collect("complete") });
        await sql.transaction(batch);
      },
    });
  });

  test("overlapping requests over WebSockets never mix, also where a pool would rather fetch", async () => {
    await using setup = await setUp();
    neonConfig.poolQueryViaFetch = true;
    const bare = new Pool({ connectionString: setup.url, max: 4 });
    const pool = withBemi(bare);
    try {
      await expectIsolation(setup.database, overPool(pool));
      // Those that belong to no request went over HTTP.
      expect(setup.server.requests()).toBe(8);
    } finally {
      neonConfig.poolQueryViaFetch = false;
      await bare.end();
    }
  });

  test.each([
    ["takes the wrapped function", (url: string) => drizzle({ client: withBemi(neon(url)) })],
    ["is wrapped itself, where it makes the function", (url: string) => withBemiForDrizzle(drizzle(url))],
  ])("drizzle %s", async (_, connect) => {
    await using setup = await setUp();
    const todos = pgTable("todos", { task: text().notNull() });
    const db = connect(setup.url);
    await as(1, async () => {
      expect(await db.insert(todos).values({ task: "a" }).returning()).toEqual([{ task: "a" }]);
      await db.batch([db.insert(todos).values({ task: "b" }), db.insert(todos).values({ task: "c" })]);
    });
    expect(await setup.story()).toEqual(["a 1", "b 1", "c 1"]);
  });
});
