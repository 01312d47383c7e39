import pg from "pg";
import { expect, test } from "vitest";
import { withContext } from "../mod.ts";
import { withBemi } from "../src/adapters/pg.ts";
import { onEachServer } from "./support/databases.ts";
import { install, track } from "./support/installation.ts";
import { expectIsolation } from "./support/isolation.ts";
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
  query(sql: string, values?: unknown[]): Promise<unknown>;
  transaction<R>(fn: (manager: Manager) => Promise<R>): Promise<R>;
}
interface TypeOrm {
  DataSource: new (options: object) => {
    initialize(): Promise<unknown>;
    destroy(): Promise<void>;
    readonly manager: Manager;
  };
  EntitySchema: new (options: object) => object;
}

onEachServer("TypeORM over a wrapped pg module", (open) => {
  test.skipIf(!packages)("every write carries its own request's context", async () => {
    await using database = await open();
    await install(database.db);
    await database.port.execute(TODOS);
    await track(database.db, "todos");
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
      url: database.url,
      entities: [todo],
      poolSize: 4,
    });
    await source.initialize();
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
});
