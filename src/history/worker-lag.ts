import type { Database } from "../database/port.ts";
import { BemiError } from "../errors.ts";
import { inSchema } from "../install/schema.ts";
import { type Moment, timeOf } from "./moment.ts";

/** What is to be in the log before it is read. */
export interface WorkerWait {
  readonly schema: string;
  /** What was committed until then, which has to be past; until now where it is left out. */
  readonly moment?: Moment | undefined;
  /**
   * At most so many milliseconds; 0 only looks, and `false` not even that.
   * @default 10000
   */
  readonly wait?: number | false | undefined;
}

/**
 * Waits until the log has what was committed until a moment, where a table is captured from the Write-Ahead Log. Where
 * none is, where the log is past that moment already, and on a standby, it returns at once.
 *
 * @throws {BemiError} `log_behind`; `usage` where the moment is yet to come
 */
export async function waitForWorker(
  db: Database,
  { schema, moment, wait = 10_000 }: WorkerWait,
): Promise<void> {
  const time = timeOf(moment ?? "infinity");
  // A change by which a moment is named is in the log, and so is all that was committed before it.
  if (time === undefined) return;
  const [now] = await db.query<{ target: string | null; is_future: boolean }>(
    inSchema(schema, wait === false ? FUTURE : TARGET),
    [time],
    { isKept: true },
  );
  if (moment !== undefined && now?.is_future) {
    throw new BemiError("usage", "This time is yet to come", {
      hint: "Pass one that is past by the clock of the database's server.",
    });
  }
  if (wait === false || !now?.target) return;
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

// The application's clock may be a little ahead of the server's.
const FUTURE =
  `select null as target, at > clock_timestamp() + interval '1 minute' as is_future from (select $1::text::timestamptz as at) as asked`;
const TARGET = FUTURE.replace("null as", '"bemi".wal_target(at)::text as');

const MARK = `select pg_logical_emit_message(true, '_bemi', '')::text as lsn
  where not current_setting('transaction_read_only')::boolean`;

const LAG =
  `select ($1::text::pg_lsn - covered)::text as bytes, has_checkpoint from "bemi".wal_lag() where bytes is not null`;
