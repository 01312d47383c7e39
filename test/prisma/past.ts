// Run by Node: the application's queries in the past through Prisma's driver adapter, in the folder of its packages.
import { createRequire } from "node:module";
import process from "node:process";
import type pg from "pg";
import { asOf } from "../../src/history/mod.ts";

const [, , folder, url, time = "", schema] = process.argv;
const load = createRequire(`${folder}/package.json`);

/** What of Prisma is used here: its packages are fetched for this test alone. */
interface Client {
  readonly todo: {
    findMany(options: object): Promise<{ task: string }[]>;
    create(options: { data: { task: string } }): Promise<unknown>;
  };
}
const { PrismaClient } = load("@prisma/client") as { PrismaClient: new (options: object) => Client };
const { PrismaPg } = load("@prisma/adapter-pg") as {
  PrismaPg: new (pool: unknown, options?: { schema: string }) => object;
};
const { Pool } = load("pg") as typeof pg;

/** The application's own, which knows nothing of the past. */
const openTodos = async (prisma: Client): Promise<string[]> =>
  (await prisma.todo.findMany({ where: { is_completed: false }, orderBy: { id: "asc" } })).map(({ task }) =>
    task
  );

const pool = new Pool({ connectionString: url, max: 1 });
// A pool of the one connection that is in the past, where the tables are in another schema.
const inPast = (past: pg.Pool): Client =>
  new PrismaClient({
    adapter: new PrismaPg(Object.assign(new Pool(), { query: past.query.bind(past) }), { schema: "pg_temp" }),
  });
const now = await openTodos(new PrismaClient({ adapter: new PrismaPg(pool) }));
const then = await asOf(pool, time, (past) => openTodos(inPast(past)), { schema });
const refused = await asOf(pool, time, (past) => inPast(past).todo.create({ data: { task: "no" } }), {
  schema,
})
  .catch((error: Error) => /read-only|cannot be changed/.test(error.message));
await pool.end();
console.log(JSON.stringify({ now, then, refused }));
