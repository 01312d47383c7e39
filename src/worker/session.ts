import { connect } from "../database/connect.ts";
import type { PostgresLike } from "../database/port.ts";
import { SQLSTATE } from "../database/sqlstate.ts";
import { BemiError } from "../errors.ts";
import { DEFAULT_SCHEMA } from "../identifiers.ts";
import { maintain } from "../install/maintain.ts";
import { inSchema, requireInstalled } from "../install/schema.ts";
import { openConnection } from "./connection.ts";
import { formatLsn, type Lsn, parseLsn } from "./decode.ts";
import { follow } from "./follow.ts";
import { codeOf, isTransient, pause } from "./retry.ts";
import { isDataError, type Link, pollRound, type RoundResult } from "./round.ts";
import type { SessionOptions, WorkerEvent } from "./run-worker.ts";
import { openSource, slotState, statusInterval, waitUntilFree } from "./source.ts";
import type { WorkerSql } from "./sql.ts";
import { slotWatch } from "./slot-watch.ts";
import { openStream, type WalStream } from "./stream.ts";
import { typeCatalog } from "./types.ts";

/** Bytes of WAL behind which it is read in bulk rather than by stream. */
const FAR_BEHIND = 256n * 1024n * 1024n;

/** How long to poll where streaming was refused before it is tried again, in milliseconds. */
const STREAM_RETRY = 300_000;

const MAINTENANCE_INTERVAL = 3_600_000;

/** Works until told to stop, done, or an error. Connections live as long. */
export async function session(
  options: SessionOptions,
  signal: AbortSignal,
  report: (written: number) => void,
): Promise<void> {
  const { once = false, mode = "auto", log = () => {} } = options;
  const opened: WorkerSql[] = [];
  const open = async (target: string | object): Promise<WorkerSql> => {
    const sql = await openConnection(target);
    opened.push(sql);
    return sql;
  };
  const tell = teller(report, log);
  try {
    const link = await prepare(options, open);
    log({ kind: "started", slot: link.source.slot, database: link.source.database });
    const goal = once ? (await slotState(link.source)).flushed : undefined;
    await openCheckpoint(link, log);
    const maintain = everySoOften(maintenance(link, log), slotWatch(link.source, log), tell.late);
    const work: Work = { link, options, signal, goal, tell, log, maintain };
    await work.maintain();
    let refusedAt: number | undefined;
    while (!signal.aborted) {
      // A run that ends soon reads in bulk: a stream would only come after it.
      const willStream = mode === "stream" || mode === "auto" && goal === undefined;
      const retryAt = refusedAt === undefined ? 0 : refusedAt + STREAM_RETRY;
      const isRefused = Date.now() < retryAt;
      if (await poll(work, willStream && !isRefused, willStream ? retryAt : Infinity) === "done") return;
      try {
        if (await stream(work) === "done") return;
      } catch (error) {
        if (isDataError(error)) {
          // What the log refuses is read again, one by one, which only a slot can do that nobody streams.
          await waitUntilFree(link.source);
          continue;
        }
        if (!(error instanceof StreamRefused)) throw error;
        if (mode === "stream") throw error.explained();
        refusedAt = Date.now();
        log({ kind: "reading", mode: "poll", reason: `streaming was refused (${error.code})` });
      }
    }
  } finally {
    tell.flush();
    await Promise.all(opened.map((sql) => sql.end({ timeout: 5 })));
  }
}

interface Work {
  readonly link: Link;
  readonly options: SessionOptions;
  readonly signal: AbortSignal;
  readonly goal: Lsn | undefined;
  readonly tell: Teller;
  readonly log: (event: WorkerEvent) => void;
  readonly maintain: () => Promise<void>;
}

/** Round after round, and one at least; ends at the goal, where a stream may take over, or at a time. */
async function poll(
  { link, options, signal, goal, tell, maintain }: Work,
  untilNear: boolean,
  until: number,
): Promise<"done" | "near"> {
  const { pollInterval = 1000 } = options;
  let interval = 100;
  while (!signal.aborted) {
    const start = Date.now();
    link.turn?.();
    await maintain();
    const result = await pollRound(link);
    tell(result);
    if (goal !== undefined && !result.isMore && result.consumed >= goal) return "done";
    if (result.isMore) continue;
    if (untilNear || start >= until) return "near";
    // A peek reads from where the oldest open transaction began: where that takes long, it is done more rarely.
    const took = Date.now() - start;
    interval = result.written > 0 ? 50 : Math.min(pollInterval, interval * 1.5);
    await pause(Math.max(interval, Math.min(2 * took, 10_000)), signal);
  }
  return "done";
}

async function stream(
  { link, options, signal, goal, tell, log, maintain }: Work,
): Promise<"done" | "far-behind"> {
  const { source } = link;
  const interval = await statusInterval(source);
  const { slot, publication } = source;
  let wal: WalStream;
  try {
    wal = await openStream(options.source, { slot, publication, statusInterval: interval, signal });
  } catch (error) {
    const code = codeOf(error);
    const isElsewhere = code === SQLSTATE.objectInUse || isTransient(code) && !/^(?:08P01|53)/.test(code);
    throw isElsewhere ? error : new StreamRefused(code, error);
  }
  try {
    log({ kind: "reading", mode: "stream", reason: "it is near the end of the Write-Ahead Log" });
    const outcome = await follow(link, wal, {
      signal,
      goal,
      report: tell,
      everySecond: maintain,
      farBehind: FAR_BEHIND,
    });
    if (outcome === "far-behind") log({ kind: "reading", mode: "bulk", reason: "it is far behind" });
    return outcome;
  } finally {
    await wal[Symbol.asyncDispose]();
    await waitUntilFree(source).catch(() => {});
  }
}

/** The server, or what stands in front of it, does not stream to this worker. */
class StreamRefused extends Error {
  readonly code: string;

  constructor(code: string, cause: unknown) {
    super("Streaming was refused", { cause });
    this.code = code;
  }

  explained(): BemiError {
    return new BemiError("wal_unavailable", `Streaming was refused (${this.code})`, {
      hint: REMEDIES[this.code] ?? "Use --mode auto or --mode poll, which need no replication connection.",
      cause: this.cause,
    });
  }
}

const REMEDIES: Readonly<Record<string, string>> = {
  "42501": "As a superuser: alter role … replication. Or use --mode poll.",
  "28000": "Let the role connect for replication in pg_hba.conf. Or use --mode poll.",
  "08P01": "Connect to the server itself, not to its pooler. Or use --mode poll.",
  "53300": "Raise max_wal_senders. Or use --mode poll.",
};

interface Teller {
  (result: Omit<RoundResult, "isMore">): void;
  /** Says what has not been said. */
  flush(): void;
  /** The same, where that was due. */
  late(): void;
}

/** Says what was written, at most once a second, since a stream may write a thousand times. */
function teller(report: (written: number) => void, log: (event: WorkerEvent) => void): Teller {
  let written = 0;
  let setAside = 0;
  let transactions = 0;
  let last: Omit<RoundResult, "isMore"> | undefined;
  let saidAt = 0;
  let delay = 0;
  const flush = (): void => {
    if (!last || written + setAside === 0) return;
    log({
      kind: "written",
      written,
      setAside,
      transactions,
      lsn: formatLsn(last.consumed),
      lag: last.lag,
      delay,
    });
    written = setAside = transactions = 0;
    saidAt = Date.now();
  };
  const late = (): void => {
    if (Date.now() - saidAt >= 1000) flush();
  };
  return Object.assign((result: Omit<RoundResult, "isMore">) => {
    report(result.written);
    written += result.written;
    setAside += result.setAside;
    transactions += result.transactions;
    last = result;
    if (result.written + result.setAside > 0) delay = Math.max(0, Date.now() - result.committedAt);
    late();
  }, { flush, late });
}

function everySoOften(...jobs: readonly (() => Promise<void> | void)[]): () => Promise<void> {
  return async () => {
    for (const job of jobs) await job();
  };
}

// Partitions ahead, and retention. A change finds its place without: it is not worth stopping for.
export function maintenance(link: Link, log: (event: WorkerEvent) => void): () => Promise<void> {
  let doneAt = 0;
  return async () => {
    if (Date.now() - doneAt < MAINTENANCE_INTERVAL) return;
    doneAt = Date.now();
    try {
      await maintain(link.destination as unknown as PostgresLike, { schema: link.destinationSchema });
    } catch (error) {
      const code = codeOf(error);
      if (isTransient(code)) throw error;
      log({ kind: "maintenance-failed", code });
    }
  };
}

/** Opens the connections of a worker, and checks what it needs. */
export async function prepare(
  options: SessionOptions,
  open: (target: string | object) => Promise<WorkerSql>,
): Promise<Link> {
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
    acceptsBareContexts: options.acceptBemiMessages ?? false,
    tracer: options.tracer,
    turn: options.turn,
  };
}

// The checkpoint's row is what two workers meet at, so it is there from the start. A slot that is past it was made
// anew, or advanced by somebody else, and a publication that is not the one that was read holds nothing of what was
// changed before it was made: what lies between is lost.
export async function openCheckpoint(link: Link, log: (event: WorkerEvent) => void): Promise<void> {
  const { source, origin, destination, destinationSchema } = link;
  const { confirmed, flushed } = await slotState(source);
  const db = connect(destination as unknown as PostgresLike);
  const id = String(origin.sourceId);
  const [row] = await db.query<{ end_lsn: string; publication: string | null }>(
    inSchema(
      destinationSchema,
      `with made as (
        insert into "bemi".checkpoints (source_id, slot, end_lsn, publication)
        values ($1::text::integer, $2::text, $3::text::pg_lsn, $4::text::bigint) on conflict do nothing
      ) select end_lsn::text, publication::text from "bemi".checkpoints where source_id = $1::text::integer`,
    ),
    [id, source.slot, formatLsn(confirmed), String(source.publicationOid)],
  );
  if (!row) return;
  const isPublicationNew = row.publication !== null && BigInt(row.publication) !== source.publicationOid;
  const to = isPublicationNew ? flushed : confirmed;
  if (to <= parseLsn(row.end_lsn) && !isPublicationNew) return;
  await db.query(
    inSchema(
      destinationSchema,
      `with moved as (
        update "bemi".checkpoints
        set end_lsn = greatest(end_lsn, $5::text::pg_lsn), publication = $4::text::bigint
        where source_id = $1::text::integer and end_lsn = $3::text::pg_lsn returning source_id)
      insert into "bemi".gaps (source_id, from_lsn, to_lsn, reason)
      select source_id, $3::text::pg_lsn, $2::text::pg_lsn, $6::text from moved`,
    ),
    [
      id,
      formatLsn(to),
      row.end_lsn,
      String(source.publicationOid),
      formatLsn(confirmed),
      isPublicationNew ? "the publication was made anew" : "the slot was past the checkpoint",
    ],
  );
  log({ kind: "gap", from: row.end_lsn, to: formatLsn(to) });
}

// FNV-1a.
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193);
  return value >>> 0;
}
