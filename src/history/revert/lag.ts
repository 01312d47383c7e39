import type { Database } from "../../database/port.ts";
import { BemiError } from "../../errors.ts";
import { quoteSchema } from "../../identifiers.ts";

/**
 * Waits until the log holds all that was committed so far in tables captured from the Write-Ahead Log. Where there are
 * none, it holds it anyway.
 *
 * @throws {BemiError} `log_behind`
 */
export async function waitForLog(db: Database, schema: string, wait = 10_000): Promise<void> {
  const bemi = quoteSchema(schema);
  const [tracked] = await db.query<{ wal: boolean }>(
    `select exists (select from ${bemi}.tracked_tables where capture = 'wal') as wal`,
  );
  if (!tracked?.wal) return;
  // A message of our own, so that there is something behind all that to be read.
  const [mark] = await db.query<{ lsn: string }>(
    "select pg_logical_emit_message(true, '_bemi', '3')::text as lsn",
  );
  const until = Date.now() + wait;
  for (let pause = 20;; pause = Math.min(250, pause * 1.5)) {
    const [row] = await db.query<{ behind: boolean }>(
      `select not exists (select from ${bemi}.checkpoints c join ${bemi}.sources s on s.id = c.source_id
        where s.database = current_database() and s.capture = 'wal' and c.end_lsn >= $1::text::pg_lsn
          and s.system_identifier = (select system_identifier from ${bemi}.this_cluster())) as behind`,
      [mark?.lsn ?? "0/0"],
    );
    if (!row?.behind) return;
    if (Date.now() >= until) break;
    await new Promise((done) => setTimeout(done, pause));
  }
  throw new BemiError("log_behind", `The log did not catch up with the Write-Ahead Log within ${wait} ms`, {
    hint: "Is a worker running? See: bemi doctor. Inside a transaction of your own it cannot catch up.",
  });
}
