import postgres from "postgres";
import { connect } from "../src/database/connect.ts";
import { asOf, changes, history as historyOf } from "../src/history/mod.ts";
import { install } from "../src/install/mod.ts";
import { fillLog } from "../test/support/million.ts";
import { startServer } from "../test/support/servers.ts";
import { compare, type Subject } from "./measure.ts";

const CHANGES = Number(process.env.BENCH_CHANGES ?? 1_000_000);

/** Reads of the past, each beside the plain query of the live table, or of the log, that it stands on. */
export async function history(version: string): Promise<void> {
  const server = await startServer(version, ["fsync=off", "shared_buffers=512MB"]);
  const sql = postgres(server.url(), { max: 1, onnotice() {} });
  try {
    await install(sql);
    const { keys, middle } = await fillLog(sql, connect(sql), {
      schema: "bemi",
      changes: CHANGES,
      keys: CHANGES / 10,
    });
    const title = `${CHANGES.toLocaleString("en")} changes of ${
      keys.toLocaleString("en")
    } rows, PostgreSQL ${version}`;
    let key = 0;
    const next = (): string => String((key += 7919) % keys + 1);
    const each = (name: string, times: number, read: (key: string) => PromiseLike<unknown>): Subject => ({
      name,
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
      each("history", 200, (id) => historyOf(sql, "todos", id)),
    ], { rounds: 3, unit: "reads/s" });
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
    ], { rounds: 3, unit: "reads/s" });
    await compare(`a context, ${title}`, [
      each(
        "plainly",
        100,
        (id) => sql`select * from bemi.changes where context @> ${sql.json({ user_id: Number(id) % 10007 })}`,
      ),
      each("changes({ context })", 100, (id) => changes(sql, { context: { user_id: Number(id) % 10007 } })),
    ], { rounds: 3, unit: "reads/s" });
  } finally {
    await sql.end();
    await server.remove();
  }
}
