import { SQLSTATE, sqlstateOf } from "../database/sqlstate.ts";
import { BemiError } from "../errors.ts";
import { DEFAULT_SCHEMA } from "../identifiers.ts";
import { maintain } from "../install/maintain.ts";
import { inSchema, requireInstalled } from "../install/schema.ts";
import { connect } from "../database/connect.ts";
import type { PostgresLike } from "../database/port.ts";
import { openConnection } from "./connection.ts";
import { formatLsn, parseLsn } from "./decode.ts";
import { pollRound, type RoundOptions, type RoundResult } from "./round.ts";
import { openSource, slotState } from "./source.ts";
import type { WorkerSql } from "./sql.ts";
import { typeCatalog } from "./types.ts";

export interface WorkerOptions {
  /** The database that the application writes: a URL, or postgres.js options. */
  readonly source: string | object;
  /**
   * The database that holds the log.
   * @default the source
   */
  readonly destination?: string | object | undefined;
  /** @default "bemi" */
  readonly schema?: string | undefined;
  /** @default the one that `bemi init` made for the database */
  readonly slot?: string | undefined;
  /**
   * How the WAL is read: `poll` works on every connection, `auto` takes the fastest way there is, which today is
   * polling.
   * @default "auto"
   */
  readonly mode?: "auto" | "poll" | undefined;
  /** End when all that was committed at the start is in the log. */
  readonly once?: boolean | undefined;
  /**
   * The longest pause between two rounds, in milliseconds; under load there is none.
   * @default 1000
   */
  readonly pollInterval?: number | undefined;
  /** Ends the worker after the round that is under way. */
  readonly signal?: AbortSignal | undefined;
  /** Is told what happens; never row values. */
  readonly log?: ((event: WorkerEvent) => void) | undefined;
}

export type WorkerEvent =
  | { readonly kind: "started"; readonly slot: string; readonly database: string }
  | {
    readonly kind: "round";
    readonly written: number;
    readonly setAside: number;
    readonly lsn: string;
    readonly lag: bigint;
  }
  | { readonly kind: "gap"; readonly from: string; readonly to: string }
  | { readonly kind: "maintenance-failed"; readonly code: string }
  | { readonly kind: "standby"; readonly slot: string }
  | { readonly kind: "retry"; readonly code: string; readonly delay: number }
  | { readonly kind: "stopped"; readonly written: number };

/** A running worker. */
export interface Worker extends AsyncDisposable {
  /** Settles when it has ended: by `once`, by `stop`, or with the error that it cannot go on with. */
  readonly finished: Promise<void>;
  /** Ends it after the round that is under way. */
  stop(): Promise<void>;
}

/**
 * Reads the Write-Ahead Log and writes the log of changes, until it is stopped. Each change is written exactly once,
 * however often this is killed: rows and checkpoint go in one transaction, and the WAL is let go of only after it.
 *
 * @throws {BemiError} by `finished`: `schema_missing`, `wal_unavailable`, `gap`
 * @example
 * ```ts
 * import { runWorker } from "@bemi/core/worker";
 * const worker = runWorker({ source: "postgres://localhost/app", once: true });
 * await worker.finished.catch((error: unknown) => console.error(error));
 * ```
 */
export function runWorker(options: WorkerOptions): Worker {
  const stopping = new AbortController();
  const stop = (): void => stopping.abort();
  if (options.signal?.aborted) stop();
  options.signal?.addEventListener("abort", stop, { once: true });
  const finished = run(options, stopping.signal).finally(() =>
    options.signal?.removeEventListener("abort", stop)
  );
  finished.catch(() => {});
  return {
    finished,
    stop: async () => {
      stop();
      await finished;
    },
    [Symbol.asyncDispose]: async () => {
      stop();
      await finished.catch(() => {});
    },
  };
}

/** Errors after which trying again makes sense: connections, restarts, failovers, full or slow servers. */
const TRANSIENT = /^(?:08|40|53|57P|58)|^(?:55P03|55006|57014|25006|CONN|E[A-Z]+$)/;

async function run(options: WorkerOptions, signal: AbortSignal): Promise<void> {
  const { once = false, log = () => {} } = options;
  let written = 0;
  let failures = 0;
  let isStandby = false;
  while (!signal.aborted) {
    try {
      await session(options, signal, (count) => {
        written += count;
        failures = 0;
        isStandby = false;
      });
      break;
    } catch (error) {
      const code = codeOf(error);
      if (!TRANSIENT.test(code) || (once && ++failures > 5)) throw error;
      const isHeld = code === SQLSTATE.objectInUse || code === SQLSTATE.lockNotAvailable;
      if (isHeld && !isStandby) log({ kind: "standby", slot: options.slot ?? "" });
      isStandby = isHeld;
      const delay = isHeld ? 1000 : Math.min(30_000, 200 * 2 ** failures++) * (0.5 + Math.random() / 2);
      if (!isHeld) log({ kind: "retry", code, delay: Math.round(delay) });
      await pause(delay, signal);
    }
  }
  log({ kind: "stopped", written });
}

const MAINTENANCE_INTERVAL = 3_600_000;

// Partitions ahead, and retention. A change finds its place without: it is not worth stopping for.
async function makePartitions(round: RoundOptions, log: (event: WorkerEvent) => void): Promise<void> {
  try {
    await maintain(round.destination as unknown as PostgresLike, { schema: round.destinationSchema });
  } catch (error) {
    const code = codeOf(error);
    if (TRANSIENT.test(code)) throw error;
    log({ kind: "maintenance-failed", code });
  }
}

/** Works until told to stop, done, or an error. Connections live as long. */
async function session(
  options: WorkerOptions,
  signal: AbortSignal,
  report: (written: number) => void,
): Promise<void> {
  const { once = false, pollInterval = 1000, log = () => {} } = options;
  const opened: WorkerSql[] = [];
  const open = async (target: string | object): Promise<WorkerSql> => {
    const sql = await openConnection(target);
    opened.push(sql);
    return sql;
  };
  try {
    const round = await prepare(options, open);
    log({ kind: "started", slot: round.source.slot, database: round.source.database });
    const goal = once ? (await slotState(round.source)).flushed : undefined;
    await openCheckpoint(round, log);
    let interval = 100;
    let maintainedAt = 0;
    while (!signal.aborted) {
      const start = Date.now();
      if (start - maintainedAt > MAINTENANCE_INTERVAL) {
        maintainedAt = start;
        await makePartitions(round, log);
      }
      const result: RoundResult = await pollRound(round);
      report(result.written);
      if (result.written > 0 || result.setAside > 0) {
        log({
          kind: "round",
          written: result.written,
          setAside: result.setAside,
          lsn: formatLsn(result.consumed),
          lag: result.lag,
        });
      }
      if (goal !== undefined && !result.isMore && result.consumed >= goal) return;
      if (result.isMore) continue;
      // A peek reads from where the oldest open transaction began: where that takes long, it is done more rarely.
      const took = Date.now() - start;
      interval = result.written > 0 ? 50 : Math.min(pollInterval, interval * 1.5);
      await pause(Math.max(interval, Math.min(2 * took, 10_000)), signal);
    }
  } finally {
    await Promise.all(opened.map((sql) => sql.end({ timeout: 5 })));
  }
}

async function prepare(
  options: WorkerOptions,
  open: (target: string | object) => Promise<WorkerSql>,
): Promise<RoundOptions> {
  const schema = options.schema ?? DEFAULT_SCHEMA;
  const source = await openSource(await open(options.source), schema, options.slot);
  await slotState(source);
  const reader = await open(options.source);
  const destination = await open(options.destination ?? options.source);
  const log = connect(destination as unknown as PostgresLike);
  await requireInstalled(log, schema);
  const [registered] = await log.query<{ id: number }>(
    inSchema(schema, `select "bemi".register_source($1::text, $2::text::integer, $3::text, 'wal') as id`),
    [source.systemIdentifier, String(source.timeline), source.database],
  );
  const origin = {
    sourceId: Number(registered?.id),
    database: source.database,
    seed: hash(`${source.systemIdentifier} ${source.timeline} ${source.database}`),
  };
  return {
    source,
    reader,
    destination,
    destinationSchema: schema,
    origin,
    types: typeCatalog(source.db),
  };
}

// The checkpoint's row is what two workers meet at, so it is there from the start. A slot that is past it was made
// anew, or advanced by somebody else: what lies between is lost.
async function openCheckpoint(round: RoundOptions, log: (event: WorkerEvent) => void): Promise<void> {
  const { source, origin, destination, destinationSchema } = round;
  const { confirmed } = await slotState(source);
  const db = connect(destination as unknown as PostgresLike);
  await db.query(
    inSchema(
      destinationSchema,
      `insert into "bemi".checkpoints (source_id, slot, end_lsn)
      values ($1::text::integer, $2::text, $3::text::pg_lsn) on conflict do nothing`,
    ),
    [String(origin.sourceId), source.slot, formatLsn(confirmed)],
  );
  const [row] = await db.query<{ end_lsn: string }>(
    inSchema(
      destinationSchema,
      `select end_lsn::text from "bemi".checkpoints where source_id = $1::text::integer`,
    ),
    [String(origin.sourceId)],
  );
  if (!row || confirmed <= parseLsn(row.end_lsn)) return;
  await db.query(
    inSchema(
      destinationSchema,
      `with moved as (
      update "bemi".checkpoints set end_lsn = $2::text::pg_lsn where source_id = $1::text::integer and end_lsn < $2::text::pg_lsn
      returning source_id)
    insert into "bemi".gaps (source_id, from_lsn, to_lsn, reason)
    select source_id, $3::text::pg_lsn, $2::text::pg_lsn, 'the slot was past the checkpoint' from moved`,
    ),
    [String(origin.sourceId), formatLsn(confirmed), row.end_lsn],
  );
  log({ kind: "gap", from: row.end_lsn, to: formatLsn(confirmed) });
}

// FNV-1a.
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193);
  return value >>> 0;
}

function codeOf(error: unknown): string {
  if (error instanceof BemiError) return "";
  const state = sqlstateOf(error);
  if (state) return state;
  const code = typeof error === "object" && error !== null ? (error as { code?: unknown }).code : undefined;
  return typeof code === "string" ? code : "";
}

function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((done) => {
    const finish = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", finish);
      done();
    };
    const timer = setTimeout(finish, milliseconds);
    signal.addEventListener("abort", finish, { once: true });
  });
}
