import type { Change, Transaction } from "./stitch.ts";
import { formatLsn } from "./decode.ts";

/** The columns that a change is written with, in this order. */
export const COLUMNS: readonly string[] = [
  "id",
  "database",
  "schema",
  "table",
  "primary_key",
  "former_primary_key",
  "operation",
  "before",
  "after",
  "context",
  "committed_at",
  "queued_at",
  "transaction_id",
  "position",
  "source_id",
  "commit_lsn",
  "transaction_index",
];

/** Where changes come from, and when they were read. */
export interface Origin {
  readonly sourceId: number;
  readonly database: string;
  /** Spreads the ids of different sources; any number. */
  readonly seed: number;
  /** ISO 8601. */
  readonly queuedAt: string;
}

/** Writes a change as a line of COPY's text format (PostgreSQL documentation, COPY, Text Format). */
export function copyLine(change: Change, origin: Origin): string {
  const { transaction } = change;
  const at = commitTime(transaction);
  return `${changeId(change, origin)}\t${escape(origin.database)}\t${escape(change.schema)}\t${
    escape(change.table)
  }\t${change.key === null ? "\\N" : escape(change.key)}\t${
    change.formerKey === null ? "\\N" : escape(change.formerKey)
  }\t${change.operation}\t${escape(change.before)}\t${escape(change.after)}\t${
    escape(change.context)
  }\t${at}\t${origin.queuedAt}\t${transaction.xid}\t${change.position}\t${origin.sourceId}\t${
    formatLsn(transaction.commitLsn)
  }\t${change.index}\n`;
}

/** The same as a JSON object of the log's columns. */
export function changeJson(change: Change, origin: Origin): string {
  const { transaction } = change;
  const at = commitTime(transaction);
  const text = {
    id: changeId(change, origin),
    database: origin.database,
    schema: change.schema,
    table: change.table,
    primary_key: change.key,
    former_primary_key: change.formerKey,
    operation: change.operation,
    committed_at: at,
    queued_at: origin.queuedAt,
    transaction_id: transaction.xid,
    position: String(change.position),
    source_id: origin.sourceId,
    commit_lsn: formatLsn(transaction.commitLsn),
    transaction_index: change.index,
  };
  const { before, after, context } = change;
  return `${JSON.stringify(text).slice(0, -1)},"before":${before},"after":${after},"context":${context}}`;
}

function escape(text: string): string {
  return /[\\\t\n\r]/.test(text)
    ? text.replace(/[\\\t\n\r]/g, (character) => ESCAPES[character] as string)
    : text;
}

const ESCAPES: Readonly<Record<string, string>> = { "\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r" };

const EPOCH_2000 = 946_684_800_000n;

let cached: { transaction: Transaction; text: string } | undefined;

/** The commit's time with its microseconds, in UTC. */
function commitTime(transaction: Transaction): string {
  if (cached?.transaction === transaction) return cached.text;
  const milliseconds = floorDivide(transaction.committedAt, 1000n);
  const micros = String(transaction.committedAt - milliseconds * 1000n).padStart(3, "0");
  const iso = new Date(Number(milliseconds + EPOCH_2000)).toISOString();
  const text = `${iso.slice(0, -1)}${micros}+00`;
  cached = { transaction, text };
  return text;
}

function floorDivide(a: bigint, b: bigint): bigint {
  return a >= 0n ? a / b : -((-a + b - 1n) / b);
}

/**
 * A UUIDv7 that follows from the source, the commit's time and LSN, and the index: a replay gives the same.
 * 48 bits of milliseconds, then 42 bits of the LSN (in steps of 8 bytes) mixed with the source, and 32 bits of index.
 */
export function changeId({ transaction, index }: Change, origin: Origin): string {
  const milliseconds = floorDivide(transaction.committedAt, 1000n) + EPOCH_2000;
  const time = BigInt.asUintN(48, milliseconds).toString(16).padStart(12, "0");
  const place = BigInt.asUintN(42, (transaction.commitLsn >> 3n) ^ (BigInt(origin.seed >>> 0) << 10n));
  const high = (place >> 30n).toString(16).padStart(3, "0");
  const low = Number(place & 0x3fffffffn);
  // Two bits of variant in front of 30 of the place, then the index.
  const middle = (0x80000000 + low).toString(16);
  const tail = (index >>> 0).toString(16).padStart(8, "0");
  return `${time.slice(0, 8)}-${time.slice(8)}-7${high}-${middle.slice(0, 4)}-${middle.slice(4)}${tail}`;
}
