// Run by Bun: its own SQL client, wrapped, on the database of DATABASE_URL. Prints what the test reads.
import { SQL } from "bun";
import { eq } from "drizzle-orm";
import { drizzle } from "drizzle-orm/bun-sql";
import { boolean, pgTable, text } from "drizzle-orm/pg-core";
import { currentContext, mergeContext, onWarning, withContext } from "../../dist/mod.js";
import { withBemi } from "../../dist/src/bun.js";
import { withBemi as withBemiForDrizzle } from "../../dist/src/adapters/drizzle.js";
import { overlappingRequests, type Writer } from "../support/requests.ts";

const url = process.env.DATABASE_URL as string;
const warnings: string[] = [];
onWarning((message: string) => void warnings.push(message));
const bare = new SQL(url, { max: 4 });
const sql = withBemi(bare);
const as = <R>(user_id: number, fn: () => R): Promise<Awaited<R>> => withContext({ user_id }, fn);
const codeOf = (error: { errno?: string }): string | undefined => error.errno;

const SUITES: Record<string, () => Promise<unknown>> = {
  async everyWay() {
    const file = `${process.env.TMPDIR ?? "/tmp"}/bemi-test-${process.pid}.sql`;
    await Bun.write(file, "insert into todos (task) values ('file') returning task");
    const results = await as(1, async () => {
      const columns = sql`(task, is_completed)`;
      return [
        await sql`insert into todos ${columns} values (${"tagged"}, ${false}) returning id::int, task`,
        await sql`insert into todos ${sql([{ task: "x" }, { task: "y" }])} returning task`.values(),
        await sql.unsafe("select 1 as one; insert into todos (task) values ('unsafe') returning task"),
        await sql.unsafe("insert into todos (task) values ($1) returning task", ["with $1"]),
        await sql.file(file),
        await sql`insert into todos (task) values ('simple') returning task`.simple(),
      ];
    });
    await sql`insert into todos (task) values ('outside')`;
    await (await Bun.file(file)).delete();
    return results;
  },

  async lazy() {
    const made = await as(1, () => ({ query: sql`insert into todos (task) values ('made')` }));
    await made.query;
    await as(2, () => sql`insert into todos (task) values ('returned')`);
    const outside = sql`insert into todos (task) values ('made outside')`;
    await as(3, async () => void await outside);
  },

  async transactions() {
    const add = async (tx: typeof sql, task: string) =>
      void await tx`insert into todos (task) values (${task})`;
    await as(1, async () => {
      await sql.begin("isolation level serializable", async (tx) => {
        await add(tx, "a");
        mergeContext({ user_id: 2 });
        await add(tx, "b");
        await tx.savepoint(async (sp) => {
          mergeContext({ user_id: 3 });
          await add(sp, "lost");
          throw new Error("back");
        }).catch(() => {});
        await add(tx, "c");
        await withContext({}, () => add(tx, "e"), { mode: "replace" });
      });
      await sql.transaction((tx) => [
        tx`insert into todos (task) values ('f') returning task`,
        tx`insert into todos (task) values ('g') returning task`,
      ]);
    });
    await sql.begin(async (tx) => {
      await add(tx, "h");
      await as(5, () => add(tx, "i"));
      await add(tx, "j");
    });
    await as(6, async () => {
      const reserved = await sql.reserve();
      await add(reserved, "alone");
      await reserved`begin`;
      await add(reserved, "in");
      await reserved`rollback`;
      await reserved`begin`;
      await add(reserved, "k");
      await reserved`commit`;
      await reserved.release();
    });
  },

  async failures() {
    const codes = await as(1, async () => [
      await sql`insert into todos (nothing) values (1)`.catch(codeOf),
      await sql`insert into todos (task) values ('twice')`.then(() => "ok"),
      await sql`insert into todos (task) values (${"twice"})`.catch(codeOf),
      await sql.unsafe("call complete()").then(() => "ok"),
      await sql`vacuum todos`.then(() => "ok"),
      await sql`insert into todos (task) values ('goes on')`.then(() => "ok"),
    ]);
    const query = as(2, async () => {
      const slow = sql`insert into todos (task) select 'never' from pg_sleep(30)`;
      setTimeout(() => slow.cancel(), 50);
      return await slow;
    });
    codes.push(await query.then(() => "ran", () => "cancelled"));
    const all = withBemi(bare, { wrap: "all" });
    await as(3, () => all`select add_todo()`);
    return { codes, warnings: warnings.length };
  },

  async killed() {
    const text = "insert into todos (task) select 'killed' from pg_sleep(30)";
    const killed = as(1, () => sql.unsafe(text)).then(() => "ran", (error: Error) => error.name);
    const admin = new SQL(url, { max: 1 });
    for (let found = 0; !found;) {
      found = (await admin`select pg_terminate_backend(pid) from pg_stat_activity
        where query = ${text} and pid <> pg_backend_pid()`).length;
    }
    const name = await killed;
    await Promise.all(
      [1, 2, 3, 4].map((user) => as(user, () => sql`insert into todos (task) values ('alive')`)),
    );
    await admin.close();
    return name;
  },

  drizzle: () => overDrizzle(drizzle({ client: sql })),
  drizzleWrapped: () => overDrizzle(withBemiForDrizzle(drizzle({ client: bare }))),

  async isolation() {
    const writer = (sql: typeof bare): Writer => ({
      insert: async (task) => await sql`insert into todos (task) values (${task})`,
      complete: async (task) => await sql`update todos set is_completed = true where task = ${task}`,
    });
    const outcome = await overlappingRequests({
      ...writer(sql),
      refused: async (task) => await sql`insert into todos (task, nothing) values (${task}, 1)`,
      transaction: (fn) => sql.begin((tx) => fn(writer(tx as typeof bare))),
    }, withContext);
    const left = await Promise.all(
      Array.from({ length: 8 }, () => sql`select current_setting('bemi.context', true) as context`),
    );
    return { outcome, left: left.filter(([row]) => row.context).length, around: currentContext() ?? null };
  },
};

const todos = pgTable("todos", { task: text().notNull(), is_completed: boolean().notNull().default(false) });

async function overDrizzle(db: ReturnType<typeof drizzle>): Promise<string> {
  const writer = (db: Pick<ReturnType<typeof drizzle>, "insert" | "update">): Writer => ({
    insert: async (task) => await db.insert(todos).values({ task }),
    complete: async (task) => await db.update(todos).set({ is_completed: true }).where(eq(todos.task, task)),
  });
  return await overlappingRequests({
    ...writer(db),
    refused: async (task) => await db.execute(`insert into todos (task, nothing) values ('${task}', 1)`),
    transaction: (fn) => db.transaction((tx) => fn(writer(tx))),
  }, withContext);
}

const result = await SUITES[process.argv[2] as string]?.();
await bare.close();
console.log(JSON.stringify(result ?? null));
process.exit(0);
