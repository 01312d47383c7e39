import postgres from "postgres";
import { connect } from "../src/database/connect.ts";
import { asOf, changes, history as historyOf, revert, type RevertUnit } from "@bemi/core/history";
import { install } from "@bemi/core/install";
import { fillLog } from "../test/support/million.ts";
import { startServer } from "../test/support/servers.ts";
import { compare, cpuClock, type Subject } from "./measure.ts";

// BENCH_CHANGES=10000000 is the long form: some ten minutes and 10 GB to fill the log, which is over four months.
const CHANGES = Number(process.env.BENCH_CHANGES ?? 1_000_000);
const DAYS = 90;

class RolledBack extends Error {
  readonly rows: number;

  constructor(rows: number) {
    super("rolled back");
    this.rows = rows;
  }
}

/** Reads of the past, and reverts, each beside the plain query of the live table, or of the log, that it stands on. */
export async function history(version: string): Promise<void> {
  const server = await startServer(version, ["fsync=off", "shared_buffers=512MB"]);
  const sql = postgres(server.url(), { max: 1, onnotice() {} });
  try {
    await install(sql);
    const { keys, middle } = await fillLog(sql, connect(sql), {
      schema: "bemi",
      changes: CHANGES,
      keys: CHANGES / 10,
      days: DAYS,
    });
    // What workers would do in parallel is not in the CPU time of the backend.
    await sql`set max_parallel_workers_per_gather = 0`;
    const [backend] = await sql<{ pid: number }[]>`select pg_backend_pid() as pid`;
    const reads = { rounds: 3, unit: "reads/s", server: cpuClock(backend?.pid ?? 0) };
    const title = `${CHANGES.toLocaleString("en")} changes of ${
      keys.toLocaleString("en")
    } rows over ${DAYS} days, PostgreSQL ${version}`;
    let key = 0;
    const next = (): string => String((key += 7919) % keys + 1);
    const each = (name: string, times: number, read: (key: string) => PromiseLike<unknown>): Subject => ({
      name,
      isHeadline: /^(as of|history|changes)/.test(name),
      run: async () => {
        for (let i = 0; i < times; i++) await read(next());
        return times;
      },
    });
    await compare(`one row, ${title}`, [
      each("the live row", 200, (id) => sql`select * from todos where id = ${id}`),
      each(
        "its changes, plainly",
        200,
        (id) =>
          sql`select * from bemi.changes where "table" = 'todos' and hashtextextended(primary_key, 0) = hashtextextended(${id}, 0)
          and primary_key = ${id} order by source_id, commit_lsn, transaction_index`,
      ),
      each("as of, in SQL", 200, (id) => sql`select * from bemi.as_of(null::todos, ${middle}, ${id})`),
      each("as of", 200, (id) => asOf(sql, "todos", middle, { key: id })),
      each("history, in SQL", 200, (id) => sql`select * from bemi.history('todos', ${id})`),
      each("history", 200, (id) => historyOf(sql, "todos", id)),
    ], reads);
    await compare(`the table, ${title}`, [
      each("the live table", 1, () => sql`select * from todos`),
      each(
        "the last change of each key, plainly",
        1,
        () =>
          sql`select distinct on (primary_key collate "C") after from bemi.changes where "table" = 'todos' and committed_at <= ${middle}
          order by primary_key collate "C", commit_lsn desc, transaction_index desc`,
      ),
      each("as of", 1, () => sql`select * from bemi.as_of(null::todos, ${middle})`),
      each(
        "queries in the past: copied, then one by key",
        1,
        () => asOf(sql, middle, (past) => past`select * from todos where id = 7`),
      ),
    ], reads);
    await compare(`the table counted, so that no row has to travel, ${title}`, [
      each(
        "a sequential read of the changes that it needs",
        1,
        () =>
          sql`select count(after) from bemi.changes where "table" = 'todos' and committed_at <= ${middle}`,
      ),
      each("as of", 1, () => sql`select count(*) from bemi.as_of(null::todos, ${middle})`),
    ], reads);
    await compare(`a context, ${title}`, [
      each(
        "plainly",
        100,
        (id) => sql`select * from bemi.changes where context @> ${sql.json({ user_id: Number(id) % 10007 })}`,
      ),
      each("changes({ context })", 100, (id) => changes(sql, { context: { user_id: Number(id) % 10007 } })),
    ], reads);

    // Each revert is rolled back, so that the next one finds the same.
    const undone = (unit: RevertUnit): Promise<number> =>
      sql.begin(async (tx) => {
        const { statements } = await revert(tx, unit, { onConflict: "force" });
        throw new RolledBack(statements.length);
      }).catch((error: unknown) => {
        if (error instanceof RolledBack) return error.rows;
        throw error;
      });
    const last = await sql<{ transaction: string; user: number; since: string }[]>`
      select transaction_id::text as transaction, (context ->> 'user_id')::integer as user,
        (select committed_at::text from bemi.changes order by source_id desc, commit_lsn desc offset 1000 limit 1) as since
      from bemi.changes order by source_id desc, commit_lsn desc limit 1`;
    const { transaction = "", user = 0, since = "" } = last[0] ?? {};
    const plainly = (name: string, where: string, ...parameters: (string | number)[]): Subject => ({
      name: `${name}: the rows' update, plainly`,
      run: async () =>
        await sql.begin(async (tx) => {
          const { count } = await tx.unsafe(
            `update todos set n = (c.before ->> 'n')::numeric from bemi.changes c
            where ${where} and c.operation = 'UPDATE' and todos.id = c.primary_key::bigint`,
            parameters,
          );
          throw new RolledBack(count);
        }).catch((error: unknown) => {
          if (error instanceof RolledBack) return error.rows;
          throw error;
        }),
    });
    const by = { ...reads, unit: "rows/s", byTime: true };
    await compare(`revert a transaction, ${title}`, [
      plainly("a transaction", "c.transaction_id = $1::text::bigint", transaction),
      { name: "revert", run: () => undone({ transaction }) },
    ], by);
    await compare(`revert a context, ${title}`, [
      plainly("a context", "c.context @> $1::text::jsonb", JSON.stringify({ user_id: user })),
      { name: "revert", run: () => undone({ context: { user_id: user } }) },
    ], by);
    await compare(`revert a table by its last thousand changes, ${title}`, [
      plainly("a table", `c."table" = 'todos' and c.committed_at > $1::text::timestamptz`, since),
      { name: "revert", run: () => undone({ table: "todos", to: since }) },
    ], by);
  } finally {
    await sql.end();
    await server.remove();
  }
}
