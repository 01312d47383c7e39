import postgres from "postgres";
import type { Client } from "./clients.ts";
import type { Deadline } from "./deadline.ts";
import type { Fleet } from "./fleet.ts";

export interface RestOptions {
  readonly url: string;
  readonly clients: readonly Client[];
  readonly fleet: Fleet;
  readonly deadline: Deadline;
}

/** With the clients held back: waits until nothing is written any more, and all that was is in the log. */
export async function atRest(
  { url, clients, fleet, deadline }: RestOptions,
  fn: (sql: postgres.Sql) => Promise<void>,
): Promise<void> {
  await deadline.until("the clients to hold", () => clients.every(({ isHeld }) => isHeld), 90_000);
  const sql = postgres(url, { max: 1, onnotice() {}, connection: { synchronous_commit: "on" } });
  try {
    await deadline.until("the clients' last transactions to end", async () => {
      const open = await sql`select from pg_stat_activity
        where backend_xid is not null and application_name = 'postgres.js' and pid <> pg_backend_pid()`;
      return open.length === 0;
    }, 60_000);
    const [row] = await sql<{ lsn: string }[]>`select pg_current_wal_insert_lsn()::text as lsn`;
    // Large enough for a checkpoint of the worker's, and flushed with all that is before it.
    await sql.unsafe("select pg_logical_emit_message(true, 'chaos', repeat('x', 200000))");
    await deadline.untilThere("the workers to catch up", async () => {
      fleet.keepEnough();
      const [checkpoint] = await sql<{ end_lsn: string; is_there: boolean }[]>`
        select end_lsn::text, end_lsn >= ${row?.lsn ?? ""}::pg_lsn as is_there from bemi.checkpoints
        order by updated_at desc limit 1`;
      return checkpoint?.is_there || (checkpoint?.end_lsn ?? "");
    }, 120_000);
    await fn(sql);
  } finally {
    await sql.end({ timeout: 1 });
  }
}
