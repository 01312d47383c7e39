// Run by Node: overlapping requests through Prisma's driver adapter over a wrapped pg Pool, in the folder of its packages.
import { createRequire } from "node:module";
import process from "node:process";
import type pg from "pg";
import { withContext } from "../../mod.ts";
import { withBemi } from "../../src/adapters/pg.ts";
import { overlappingRequests, type Writer } from "../support/requests.ts";

const [, , folder, url] = process.argv;
const load = createRequire(`${folder}/package.json`);

/** What of Prisma is used here: its packages are fetched for this test alone. */
interface Client {
  readonly todo: {
    create(options: { data: { task: string } }): Promise<unknown>;
    updateMany(options: { where: { task: string }; data: { is_completed: boolean } }): Promise<unknown>;
  };
  $executeRawUnsafe(sql: string, ...values: string[]): Promise<unknown>;
  $transaction(fn: (tx: Client) => Promise<void>, options: object): Promise<unknown>;
  $disconnect(): Promise<void>;
}
const { PrismaClient } = load("@prisma/client") as { PrismaClient: new (options: object) => Client };
const { PrismaPg } = load("@prisma/adapter-pg") as { PrismaPg: new (pool: pg.Pool) => object };
const { Pool } = load("pg") as typeof pg;

const pool = withBemi(new Pool({ connectionString: url, max: 4 }));
const prisma = new PrismaClient({ adapter: new PrismaPg(pool) });
const writer = (on: Client): Writer => ({
  insert: (task) => on.todo.create({ data: { task } }),
  complete: (task) => on.todo.updateMany({ where: { task }, data: { is_completed: true } }),
});
const outcome = await overlappingRequests({
  ...writer(prisma),
  refused: (task) => prisma.$executeRawUnsafe("insert into todos (task, nothing) values ($1, 1)", task),
  // A busy machine keeps them waiting.
  transaction: (fn) => prisma.$transaction((tx) => fn(writer(tx)), { maxWait: 60_000, timeout: 60_000 }),
}, withContext);
await prisma.$disconnect();
await pool.end();
console.log(outcome);
