import type { Database } from "../database/port.ts";
import { BemiError } from "../errors.ts";
import { inSchema } from "../install/schema.ts";
import { type Moment, timeOf } from "./moment.ts";

/** What is to be in the log before it is read. */
export interface WorkerWait {
  readonly schema: string;
  /** What was committed until then; until now where it is left out. */
  readonly moment?: Moment | undefined;
  /**
   * At most so many milliseconds; 0 only looks.
   * @default 10000
   */
  readonly wait?: number | undefined;
}

/**
 * Waits until the log has what was committed until a moment, where a table is captured from the Write-Ahead Log. Where
 * none is, where the log is past that moment already, and on a standby, it returns at once.
 *
 * @throws {BemiError} `log_behind`
 */
export async function waitForWorker(
  db: Database,
  { schema, moment = "infinity", wait = 10_000 }: WorkerWait,
): Promise<void> {
  const time = timeOf(moment);
  // A change by which a moment is named is in the log, and so is all that was committed before it.
  if (time === undefined) return;
  const [now] = await db.query<{ target: string | null }>(
    inSchema(schema, 'select "bemi".wal_target($1::text::timestamptz)::text as target'),
    [time],
    { isKept: true },
  );
  if (!now?.target) return;
  // An empty message of our own, so that the worker has something to read behind all that; where it can be written.
  const [mark] = wait === 0 ? [] : await db.query<{ lsn: string }>(MARK);
  const target = mark?.lsn ?? now.target;
  const end = Date.now() + wait;
  for (let pause = 5;; pause = Math.min(pause * 2, 250)) {
    const [lag] = await db.query<Lag>(inSchema(schema, LAG), [target]);
    if (lag?.has_checkpoint && Number(lag.bytes) <= 0) return;
    if (Date.now() >= end || !lag) throw behind(lag);
    await new Promise((done) => setTimeout(done, pause));
  }
}

interface Lag {
  readonly bytes: string;
  readonly has_checkpoint: boolean;
}

function behind(lag: Lag | undefined): BemiError {
  if (!lag) {
    return new BemiError(
      "log_behind",
      "Nothing reads the WAL of this database into its log: there is no slot",
      {
        hint: "Run bemi worker, and see bemi doctor. asOf() takes what is in the log with { wait: false }.",
      },
    );
  }
  return new BemiError(
    "log_behind",
    `The worker has ${Math.max(Number(lag.bytes), 0)} bytes of WAL yet to read`,
    {
      hint: "Run bemi worker, or bemi-poll --once, or allow more time with the option `wait`; " +
        "inside a transaction of your own it cannot catch up.",
    },
  );
}

const MARK = `select pg_logical_emit_message(true, '_bemi', '')::text as lsn
  where not current_setting('transaction_read_only')::boolean`;

const LAG =
  `select ($1::text::pg_lsn - covered)::text as bytes, has_checkpoint from "bemi".wal_lag() where bytes is not null`;
