import { eq, sql } from "drizzle-orm";
import { drizzle as nodePostgres } from "drizzle-orm/node-postgres";
import { bigint, boolean, pgTable, text } from "drizzle-orm/pg-core";
import { drizzle as pglite } from "drizzle-orm/pglite";
import { drizzle as postgresJs } from "drizzle-orm/postgres-js";
import pg from "pg";
import { describe, expect, test } from "vitest";
import { mergeContext, withContext } from "../mod.ts";
import { withBemi as withBemiForDrizzle } from "../src/adapters/drizzle.ts";
import { withBemi as withBemiForPg } from "../src/adapters/pg.ts";
import { withBemi as withBemiForPglite } from "../src/adapters/pglite.ts";
import { withBemi as withBemiForPostgres } from "../src/adapters/postgres.ts";
import { onEachServer, onPglite, type TestDatabase } from "./support/databases.ts";
import { install, track } from "./support/installation.ts";
import { expectIsolation } from "./support/isolation.ts";
import type { RequestClient, Writer } from "./support/requests.ts";
import { seen, TODOS } from "./support/todos.ts";

const todos = pgTable("todos", {
  id: bigint({ mode: "number" }).primaryKey().generatedByDefaultAsIdentity(),
  task: text().notNull(),
  is_completed: boolean().notNull().default(false),
});

/** The same to every driver, as far as these tests use it. */
type Drizzle = ReturnType<typeof nodePostgres<{ todos: typeof todos }>>;
type Tx = Parameters<Parameters<Drizzle["transaction"]>[0]>[0];
type Open<T extends TestDatabase> = () => Promise<T>;

const as = <R>(user_id: number, fn: () => R): Promise<Awaited<R>> => withContext({ user_id }, fn);

function behaves<T extends TestDatabase>(
  open: Open<T>,
  connect: (database: T) => Drizzle,
): void {
  const setUp = async (): Promise<{ database: T; db: Drizzle } & AsyncDisposable> => {
    const database = await open();
    await install(database.db);
    await database.port.execute(TODOS);
    await track(database.db, "todos");
    const db = connect(database);
    return {
      database,
      db,
      [Symbol.asyncDispose]: async () => {
        const client = db.$client as unknown as { end?(): Promise<void> };
        await client.end?.();
        await database[Symbol.asyncDispose]();
      },
    };
  };
  const story = async ({ port }: TestDatabase): Promise<string[]> =>
    (await seen(port)).map(({ before, after, context }) =>
      `${after.task ?? before.task} ${context.user_id ?? "-"}`
    );

  test("every kind of write carries the context, and gives what drizzle gives", async () => {
    await using setup = await setUp();
    const { db, database } = setup;
    const add = db.insert(todos).values({ task: sql.placeholder("task") }).prepare("add_todo");
    await as(1, async () => {
      expect(await db.insert(todos).values({ task: "a" }).returning()).toEqual([
        { id: 1, task: "a", is_completed: false },
      ]);
      await db.update(todos).set({ task: "b" }).where(eq(todos.task, "a"));
      await add.execute({ task: "c" });
      await add.execute({ task: "d" });
      await db.execute(sql`insert into todos (task) values (${"e"})`);
      const deleted = db.$with("deleted").as(db.delete(todos).where(eq(todos.task, "d")).returning());
      expect(await db.with(deleted).select({ task: deleted.task }).from(deleted)).toEqual([{ task: "d" }]);
      expect(await db.query.todos.findFirst({ where: eq(todos.task, "e") })).toMatchObject({ task: "e" });
    });
    // Lazy: it runs where it is awaited, and withContext awaits what it is given.
    await as(2, () => db.insert(todos).values({ task: "lazy" }));
    await db.insert(todos).values({ task: "outside" });
    expect(await story(database)).toEqual(["a 1", "b 1", "c 1", "d 1", "e 1", "d 1", "lazy 2", "outside -"]);
  });

  test("transactions, savepoints and failures have the context in force", async () => {
    await using setup = await setUp();
    const { db, database } = setup;
    const add = async (tx: Drizzle | Tx, task: string): Promise<void> =>
      void await tx.insert(todos).values({ task });
    await as(1, async () => {
      await db.transaction(async (tx) => {
        await add(tx, "a");
        mergeContext({ user_id: 2 });
        await add(tx, "b");
        await tx.transaction(async (inner) => {
          mergeContext({ user_id: 3 });
          await add(inner, "lost");
          throw new Error("back");
        }).catch(() => {});
        await add(tx, "c");
        await tx.transaction((inner) => add(inner, "d"));
      }, { isolationLevel: "serializable" });
      await expect(db.transaction(async (tx) => {
        await add(tx, "never");
        tx.rollback();
      })).rejects.toThrow();
      await expect(db.execute(sql`insert into todos (nothing) values (1)`)).rejects.toThrow();
      await add(db, "e");
    });
    await db.transaction(async (tx) => {
      await add(tx, "f");
      await as(4, () => add(tx, "g"));
      await add(tx, "h");
    });
    expect(await story(database)).toEqual(["a 1", "b 2", "c 3", "d 3", "e 3", "f -", "g 4", "h -"]);
  });

  test("300 overlapping requests, half of them failing, never mix", async () => {
    await using setup = await setUp();
    await expectIsolation(setup.database, requests(setup.db));
  });
}

function requests(db: Drizzle): RequestClient {
  const writer = (db: Drizzle | Tx): Writer => ({
    insert: async (task) => await db.insert(todos).values({ task }),
    complete: async (task) => await db.update(todos).set({ is_completed: true }).where(eq(todos.task, task)),
  });
  return {
    ...writer(db),
    refused: async (task) => await db.execute(sql`insert into todos (task, nothing) values (${task}, 1)`),
    transaction: (fn) => db.transaction((tx) => fn(writer(tx))),
  };
}

const schema = { todos };

onEachServer("drizzle", (open) => {
  describe("over a wrapped pg Pool", () =>
    behaves(open, ({ url }) => {
      const client = withBemiForPg(new pg.Pool({ connectionString: url, max: 4 }));
      return nodePostgres({ client, schema });
    }));
  describe("over a wrapped postgres.js", () =>
    behaves(open, (database) => {
      const client = withBemiForPostgres(database.connect());
      return postgresJs({ client, schema }) as unknown as Drizzle;
    }));
  describe("over node-postgres, wrapped itself", () =>
    behaves(
      open,
      ({ url }) =>
        withBemiForDrizzle(nodePostgres({ connection: { connectionString: url, max: 4 }, schema })),
    ));
  describe("over postgres.js, wrapped itself", () =>
    behaves(
      open,
      ({ url }) =>
        withBemiForDrizzle(
          postgresJs({ connection: { url, max: 4, onnotice() {} }, schema }),
        ) as unknown as Drizzle,
    ));
});

onPglite(
  "drizzle over a wrapped PGlite",
  (open) =>
    behaves(open, ({ db }) => pglite({ client: withBemiForPglite(db), schema }) as unknown as Drizzle),
);
onPglite(
  "drizzle over PGlite, wrapped itself",
  (open) =>
    behaves(
      open,
      ({ db }) => withBemiForDrizzle(pglite({ client: db, schema })) as unknown as Drizzle,
    ),
);
