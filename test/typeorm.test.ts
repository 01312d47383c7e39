import pg from "pg";
import { expect, test } from "vitest";
import { withContext } from "../mod.ts";
import { withBemi } from "../src/adapters/pg.ts";
import { asOf } from "../src/history/mod.ts";
import { onEachServer } from "./support/databases.ts";
import { install, SCHEMA, track } from "./support/installation.ts";
import { expectIsolation } from "./support/isolation.ts";
import { clock } from "./support/moments.ts";
import { npmPackages } from "./support/npm-packages.ts";
import type { Writer } from "./support/requests.ts";
import { seen, TODOS } from "./support/todos.ts";

const packages = npmPackages("typeorm", ["typeorm@1.1.1", "reflect-metadata@0.2.2", "pg@8.23.1"]);

/** What of TypeORM is used here: its package is fetched for this test alone. */
interface Manager {
  insert(entity: string, row: object): Promise<unknown>;
  update(entity: string, where: object, row: object): Promise<unknown>;
  save(entity: string, row: object): Promise<object>;
  remove(entity: string, row: object): Promise<unknown>;
  find(entity: string, options: object): Promise<{ task: string }[]>;
  query(sql: string, values?: unknown[]): Promise<unknown>;
  transaction<R>(fn: (manager: Manager) => Promise<R>): Promise<R>;
}
interface QueryRunner {
  connect(): Promise<pg.PoolClient>;
  readonly manager: Manager;
  release(): Promise<void>;
}
interface TypeOrm {
  DataSource: new (options: object) => {
    initialize(): Promise<unknown>;
    destroy(): Promise<void>;
    readonly manager: Manager;
    createQueryRunner(): QueryRunner;
  };
  EntitySchema: new (options: object) => object;
}

onEachServer("TypeORM over a wrapped pg module", (open) => {
  test.skipIf(!packages)("every write carries its own request's context", async () => {
    await using database = await open();
    await install(database.db);
    await database.port.execute(TODOS);
    await track(database.db, "todos");
    const source = await dataSource(database.url);
    const writer = (on: Manager): Writer => ({
      insert: (task) => on.insert("todo", { task }),
      complete: (task) => on.update("todo", { task }, { is_completed: true }),
    });
    const { manager } = source;
    try {
      await expectIsolation(database, {
        ...writer(manager),
        refused: (task) => manager.query("insert into todos (task, nothing) values ($1, 1)", [task]),
        transaction: (fn) => manager.transaction((tx) => fn(writer(tx))),
      });
      await withContext({ user_id: 1 }, async () => {
        const saved = await manager.save("todo", { task: "saved" });
        await manager.transaction(async (tx) => {
          await tx.transaction(async (inner) => {
            await inner.insert("todo", { task: "lost" });
            throw new Error("back");
          }).catch(() => {});
          await tx.insert("todo", { task: "kept" });
        });
        await manager.remove("todo", saved);
      });
      const last = (await seen(database.port)).slice(-3).map(({ operation, before, after, context }) =>
        `${operation} ${after.task ?? before.task} ${context.user_id}`
      );
      expect(last).toEqual(["CREATE saved 1", "CREATE kept 1", "DELETE saved 1"]);
    } finally {
      await source.destroy();
    }
  });

  test.skipIf(!packages)(
    "its own queries run in the past, over the connection of a query runner",
    async () => {
      await using database = await open();
      await install(database.db);
      await database.port.execute(TODOS);
      await track(database.db, "todos");
      const source = await dataSource(database.url);
      try {
        const openTodos = async (on: Manager): Promise<string[]> =>
          (await on.find("todo", { where: { is_completed: false }, order: { id: "DESC" } })).map(({ task }) =>
            task
          );
        await source.manager.insert("todo", { task: "Sleep" });
        const time = await clock(database.port);
        await source.manager.update("todo", { task: "Sleep" }, { is_completed: true });
        await source.manager.insert("todo", { task: "Eat" });
        const runner = source.createQueryRunner();
        try {
          const client = await runner.connect();
          expect(await asOf(client, time, () => openTodos(runner.manager), { schema: SCHEMA })).toEqual([
            "Sleep",
          ]);
          await expect(
            asOf(client, time, () => runner.manager.insert("todo", { task: "no" }), { schema: SCHEMA }),
          )
            .rejects.toMatchObject({ code: "25006" });
          expect(await openTodos(runner.manager)).toEqual(["Eat"]);
        } finally {
          await runner.release();
        }
      } finally {
        await source.destroy();
      }
    },
  );
});

async function dataSource(url: string): Promise<InstanceType<TypeOrm["DataSource"]>> {
  const { DataSource, EntitySchema } = packages?.require("typeorm") as TypeOrm;
  const todo = new EntitySchema({
    name: "todo",
    tableName: "todos",
    columns: {
      id: { type: "bigint", primary: true, generated: true },
      task: { type: "text" },
      is_completed: { type: "boolean", default: false },
    },
  });
  const source = new DataSource({
    type: "postgres",
    driver: withBemi(pg),
    url,
    entities: [todo],
    poolSize: 4,
  });
  await source.initialize();
  return source;
}
