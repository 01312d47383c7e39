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
  const { idHead, head, tail } = transactionText(change.transaction, origin);
  return `${idHead}${indexHex(change.index)}\t${escape(origin.database)}\t${escape(change.schema)}\t${
    escape(change.table)
  }\t${change.key === null ? "\\N" : escape(change.key)}\t${
    change.formerKey === null ? "\\N" : escape(change.formerKey)
  }\t${change.operation}\t${escape(change.before)}\t${escape(change.after)}\t${
    escapeContext(change.context)
  }${head}${change.position}${tail}${change.index}\n`;
}

/** The same as a JSON object of the log's columns, and `unreadable` where that applies. */
export function changeJson(change: Change, origin: Origin): string {
  const { transaction } = change;
  const text = {
    id: changeId(change, origin),
    database: origin.database,
    schema: change.schema,
    table: change.table,
    primary_key: change.key,
    former_primary_key: change.formerKey,
    operation: change.operation,
    committed_at: transactionText(transaction, origin).committedAt,
    queued_at: origin.queuedAt,
    transaction_id: transaction.xid,
    position: String(change.position),
    source_id: origin.sourceId,
    commit_lsn: formatLsn(transaction.commitLsn),
    transaction_index: change.index,
  };
  const { before, after, context, unreadable } = change;
  const mark = unreadable ? `"unreadable":${JSON.stringify(unreadable)},` : "";
  return `${
    JSON.stringify(text).slice(0, -1)
  },${mark}"before":${before},"after":${after},"context":${context}}`;
}

// Four searches of the runtime's own are faster than one regular expression.
function escape(text: string): string {
  return text.includes("\\") || text.includes("\t") || text.includes("\n") || text.includes("\r")
    ? text.replace(/[\\\t\n\r]/g, (character) => ESCAPES[character] as string)
    : text;
}

const ESCAPES: Readonly<Record<string, string>> = { "\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r" };

let context = { text: "", escaped: "" };

/** All rows of a statement have the same. */
function escapeContext(text: string): string {
  if (context.text !== text) context = { text, escaped: escape(text) };
  return context.escaped;
}

/** What every line of a transaction has. */
interface TransactionText {
  readonly transaction: Transaction;
  readonly origin: Origin;
  readonly committedAt: string;
  /** The id without the index. */
  readonly idHead: string;
  /** From the context to the position. */
  readonly head: string;
  /** From the position to the index. */
  readonly tail: string;
}

let cached: TransactionText | undefined;

function transactionText(transaction: Transaction, origin: Origin): TransactionText {
  if (cached?.transaction === transaction && cached.origin === origin) return cached;
  const committedAt = commitTime(transaction);
  return cached = {
    transaction,
    origin,
    committedAt,
    idHead: idHead(transaction, origin),
    head: `\t${committedAt}\t${origin.queuedAt}\t${transaction.xid}\t`,
    tail: `\t${origin.sourceId}\t${formatLsn(transaction.commitLsn)}\t`,
  };
}

const EPOCH_2000 = 946_684_800_000n;

/** The commit's time with its microseconds, in UTC. */
function commitTime(transaction: Transaction): string {
  const milliseconds = floorDivide(transaction.committedAt, 1000n);
  const micros = String(transaction.committedAt - milliseconds * 1000n).padStart(3, "0");
  const iso = new Date(Number(milliseconds + EPOCH_2000)).toISOString();
  return `${iso.slice(0, -1)}${micros}+00`;
}

function floorDivide(a: bigint, b: bigint): bigint {
  return a >= 0n ? a / b : -((-a + b - 1n) / b);
}

/**
 * A UUIDv7 that follows from the source, the commit's time and LSN, and the index: a replay gives the same.
 * 48 bits of milliseconds, then 42 bits of the LSN (in steps of 8 bytes) mixed with the source, and 32 bits of index.
 */
export function changeId({ transaction, index }: Change, origin: Origin): string {
  return transactionText(transaction, origin).idHead + indexHex(index);
}

function idHead({ committedAt, commitLsn }: Transaction, origin: Origin): string {
  const milliseconds = floorDivide(committedAt, 1000n) + EPOCH_2000;
  const time = BigInt.asUintN(48, milliseconds).toString(16).padStart(12, "0");
  const place = BigInt.asUintN(42, (commitLsn >> 3n) ^ (BigInt(origin.seed >>> 0) << 10n));
  const high = (place >> 30n).toString(16).padStart(3, "0");
  // Two bits of variant in front of 30 of the place.
  const middle = (0x80000000 + Number(place & 0x3fffffffn)).toString(16);
  return `${time.slice(0, 8)}-${time.slice(8)}-7${high}-${middle.slice(0, 4)}-${middle.slice(4)}`;
}

function indexHex(index: number): string {
  return (index >>> 0).toString(16).padStart(8, "0");
}
