// Run by Node: overlapping requests through MikroORM, of the major version and in the folder that it is given.
import { createRequire } from "node:module";
import process from "node:process";
import pg from "pg";
import { withContext } from "../../mod.ts";
import { withBemi } from "../../src/adapters/pg.ts";
import { overlappingRequests, type Writer } from "../support/requests.ts";

const [, , major, folder, url = ""] = process.argv;
const load = createRequire(`${folder}/package.json`);

/** What of MikroORM is used here: its packages are fetched for this test alone. */
interface EntityManager {
  fork(): EntityManager;
  create(entity: string, row: object): { task: string; is_completed: boolean };
  findOneOrFail(entity: string, where: object): Promise<{ is_completed: boolean }>;
  flush(): Promise<void>;
  transactional(fn: (em: EntityManager) => Promise<void>): Promise<void>;
  execute(sql: string, values: readonly string[]): Promise<unknown>;
}
interface MikroOrm {
  MikroORM: { init(options: object): Promise<{ em: EntityManager; close(): Promise<void> }> };
  EntitySchema: new (options: object) => object;
}

/** Version 6 stands on knex, which asks its dialect for the driver; version 7 on kysely, which takes a pool. */
function driverOptions(): object {
  if (major === "6") {
    const { PostgreSqlKnexDialect } = load("@mikro-orm/knex") as {
      PostgreSqlKnexDialect: new (...args: object[]) => object;
    };
    return {
      client: class extends PostgreSqlKnexDialect {
        _driver(): typeof pg {
          return withBemi(pg);
        }
      },
    };
  }
  const { PostgresDialect } = load("kysely") as { PostgresDialect: new (options: object) => object };
  return new PostgresDialect({ pool: withBemi(new pg.Pool({ connectionString: url, max: 4 })) });
}

const { MikroORM, EntitySchema } = load("@mikro-orm/postgresql") as MikroOrm;
const todo = new EntitySchema({
  name: "todo",
  tableName: "todos",
  properties: {
    id: { type: "bigint", primary: true },
    task: { type: "text" },
    is_completed: { type: "boolean", default: false },
  },
});
const orm = await MikroORM.init({
  entities: [todo],
  clientUrl: url,
  pool: { min: 0, max: 4 },
  driverOptions: driverOptions(),
  // Refusals are part of the test.
  logger: () => {},
});

const writer = (em: EntityManager): Writer => ({
  insert: async (task) => {
    em.create("todo", { task });
    await em.flush();
  },
  complete: async (task) => {
    const found = await em.findOneOrFail("todo", { task });
    found.is_completed = true;
    await em.flush();
  },
});
const outcome = await overlappingRequests({
  insert: (task) => writer(orm.em.fork()).insert(task),
  complete: (task) => writer(orm.em.fork()).complete(task),
  refused: (task) => orm.em.fork().execute("insert into todos (task, nothing) values (?, 1)", [task]),
  transaction: (fn) => orm.em.fork().transactional((em) => fn(writer(em))),
}, withContext);
await orm.close();
console.log(outcome);
