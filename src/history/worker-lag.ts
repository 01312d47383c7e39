import type { Database } from "../database/port.ts";
import { BemiError } from "../errors.ts";
import { inSchema } from "../install/schema.ts";
import type { Moment } from "./moment.ts";

/**
 * Waits until the worker has put into the log what was committed until now, where a table is captured from the
 * Write-Ahead Log and the moment is not long past. Where nothing is, or the log is kept elsewhere, it returns at once.
 *
 * @param wait at most so many milliseconds; 0 only looks
 * @throws {BemiError} `log_behind`
 */
export async function waitForWorker(
  db: Database,
  { schema, moment, wait }: { readonly schema: string; readonly moment: Moment; readonly wait: number },
): Promise<void> {
  if (typeof moment !== "string" && !(moment instanceof Date)) return;
  const time = typeof moment === "string" ? moment : moment.toISOString();
  const [now] = await db.query<{ target: string | null }>(inSchema(schema, TARGET), [time]);
  if (!now?.target) return;
  // A message of our own, so that the worker has something to read behind all that; where it can be written.
  const [mark] = wait === 0 ? [] : await db.query<{ lsn: string }>(MARK);
  const target = mark?.lsn ?? now.target;
  const end = Date.now() + wait;
  for (let pause = 5;; pause = Math.min(pause * 2, 250)) {
    const [lag] = await db.query<{ bytes: string | null }>(
      inSchema(schema, `select ($1::text::pg_lsn - covered)::text as bytes from "bemi".wal_lag()`),
      [target],
    );
    if (!lag?.bytes || Number(lag.bytes) <= 0) return;
    if (Date.now() >= end) {
      throw new BemiError("log_behind", `The worker has ${lag.bytes} bytes of WAL yet to read`, {
        hint: "Run bemi worker, or bemi-poll --once, or allow more time with the option `wait`.",
      });
    }
    await new Promise((done) => setTimeout(done, pause));
  }
}

const MARK = `select pg_logical_emit_message(true, '_bemi', '3')::text as lsn
  where not current_setting('transaction_read_only')::boolean`;

// What was committed before the last change that is in the log is in the log: commits are read in their order.
const TARGET = `select case when exists (select from "bemi".tracked_tables where capture = 'wal')
  and not pg_is_in_recovery()
  and not coalesce((select l.committed_at > $1::text::timestamptz
    from "bemi".sources s, lateral (select c.committed_at from "bemi".changes c where c.source_id = s.id
      order by c.commit_lsn desc, c.transaction_index desc limit 1) as l
    where s.capture = 'wal' order by l.committed_at desc limit 1), false)
  then pg_current_wal_flush_lsn()::text end as target`;
