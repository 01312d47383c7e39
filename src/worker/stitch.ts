import type { Buffer } from "node:buffer";
import {
  type ContextMessage,
  hasUnstorableEscape,
  parseBareContext,
  parseMessage,
  parseSnapshot,
} from "./message.ts";
import type { Lsn, PgoutputMessage } from "./decode.ts";
import { type Catalog, type Image, noteUnchanged, Table, unknownTable } from "./table.ts";

/** One change, stitched with its context. `before`, `after` and `context` are JSON objects as text. */
export interface Change {
  readonly transaction: Transaction;
  /** From 0, in the order of the stream. */
  readonly index: number;
  readonly position: Lsn;
  readonly schema: string;
  readonly table: string;
  /** `RECONCILE` is a live row, or `null` for none: what it is to the log is found out when it is written. */
  readonly operation: "CREATE" | "UPDATE" | "DELETE" | "TRUNCATE" | "SNAPSHOT" | "RECONCILE";
  readonly key: string | null;
  readonly formerKey: string | null;
  readonly before: string;
  readonly after: string;
  readonly context: string;
  /** Whether jsonb is known to refuse it, or a column is unreadable. */
  readonly isUnstorable: boolean;
  /** Columns whose text is not of their type; they hold the text. Absent where there are none. */
  readonly unreadable?: readonly string[];
  /** Of a `RECONCILE`: what the log has to know of its table, if anything, as JSON (see `past_of()`). */
  readonly past?: string;
}

export interface Transaction {
  readonly commitLsn: Lsn;
  /** µs since 2000-01-01 UTC. */
  readonly committedAt: bigint;
  readonly xid: number;
}

/** Takes the messages of one decoding session, in order. */
export interface Stitcher {
  /** Passes each change on as soon as it is known. The types of a relation have to be loaded before it is pushed. */
  push(message: PgoutputMessage, lsn: Lsn, emit: (change: Change) => void): void;
  /** Has what the catalog says of each relation asked anew. */
  refresh(): void;
}

type Operation = ContextMessage["operation"];

interface Attributed {
  readonly context: string;
  readonly operation: Operation;
  readonly order: number;
  /** How many changes came before it in its transaction. */
  readonly at: number;
}

interface HalfMove {
  readonly table: Table;
  readonly before: Image;
  readonly position: Lsn;
  readonly index: number;
  readonly context: string;
  /** How many messages came before it. */
  readonly order: number;
  /** Whether it may as well be a DELETE, of a MERGE that does both. */
  readonly isDoubtful: boolean;
}

/** What a TRUNCATE said of a partition. */
interface TruncatedPartition {
  readonly root: number;
  readonly leaf: number;
  readonly position: Lsn;
  readonly context: string;
}

/** What a row gets that no message of its transaction covers: triggers were off, or it was not tracked yet. */
const UNATTRIBUTED = '{"db": {"context_error": "no message"}}';

/**
 * Puts together transactions, rows and contexts. A row takes the latest message of its transaction for its table and
 * operation. An UPDATE that moves a row to another partition arrives as DELETE and INSERT, and is made one again.
 */
export function stitcher(catalog: Catalog): Stitcher {
  const tables = new Map<number, Table>();
  let transaction: Transaction | undefined;
  let index = 0;
  let order = 0;
  let bare: string | undefined;
  const messages = new Map<number, Attributed[]>();
  const moves = new Map<number, HalfMove[]>();
  let truncated: TruncatedPartition[] = [];

  const tableAt = (oid: number, lsn: Lsn): Table | undefined => {
    const table = tables.get(oid);
    if (!table || table.covers(lsn)) return table;
    const other = new Table(table.relation, catalog, lsn);
    tables.set(oid, other);
    return other;
  };

  const isForged = ({ seal }: ContextMessage, lsn: Lsn): boolean =>
    catalog.seal?.enforcedFrom !== undefined && lsn >= catalog.seal.enforcedFrom &&
    seal !== catalog.seal.secret;

  const takeSnapshot = (content: Buffer, lsn: Lsn, emit: (change: Change) => void): void => {
    const row = parseSnapshot(content);
    const table = row && row.seal === catalog.seal?.secret ? unknownTable(row.root, catalog, lsn) : undefined;
    if (!row || !table) return;
    const context = latest(table, [row.operation])?.context ?? UNATTRIBUTED;
    const after = { json: row.image, values: [] };
    const taken = change(table, row.operation, lsn, index++, context, undefined, after);
    emit({ ...taken, key: row.key, ...(row.past === undefined ? {} : { past: row.past }) });
  };

  /** For a row that no message covers: what another Bemi said right before it, or the mark. */
  const otherwise = (): string => {
    const context = bare ?? UNATTRIBUTED;
    bare = undefined;
    return context;
  };

  const begin = (next: Transaction): void => {
    transaction = next;
    index = 0;
    order = 0;
    bare = undefined;
    messages.clear();
    moves.clear();
    truncated = [];
  };

  /** The latest message that covers a row of this table by one of these operations. */
  const latest = (table: Table, operations: readonly Operation[]): Attributed | undefined => {
    let found: Attributed | undefined;
    for (const oid of table.family) {
      for (const message of messages.get(oid) ?? []) {
        if (operations.includes(message.operation) && (!found || message.order > found.order)) {
          found = message;
        }
      }
    }
    return found;
  };

  // The statement's triggers have spoken one after the other, before its first row. One that inserts as well may have
  // deleted one row and inserted another, and nothing says so.
  const isMergeThatMoves = (table: Table): boolean => {
    const [deleted, updated, inserted] = (["DELETE", "UPDATE", "INSERT"] as const).map((one) =>
      latest(table, [one])
    );
    const follows = (later: Attributed | undefined, earlier: Attributed | undefined): boolean =>
      later !== undefined && later.order - 1 === earlier?.order && later.at === earlier.at;
    return follows(deleted, updated) && !follows(updated, inserted);
  };

  const emitAsDelete = (
    { table, position, index: at, context, before }: HalfMove,
    emit: (change: Change) => void,
  ): void => emit(change(table, "DELETE", position, at, context, before, undefined));

  const change = (
    table: Table,
    operation: Change["operation"],
    position: Lsn,
    at: number,
    context: string,
    before: Image | undefined,
    after: Image | undefined,
  ): Change => {
    const key = operation === "TRUNCATE" ? null : table.key((after ?? before)?.values ?? []);
    const former = operation === "UPDATE" && before ? table.key(before.values) : null;
    const made: Change = {
      transaction: transaction as Transaction,
      index: at,
      position,
      schema: table.schema,
      table: table.name,
      operation,
      key,
      formerKey: former === key ? null : former,
      before: before?.json ?? "{}",
      after: after?.json ?? "{}",
      context,
      isUnstorable: table.hasJson &&
        (hasUnstorableEscape(before?.json ?? "") || hasUnstorableEscape(after?.json ?? "")),
    };
    if (!before?.unreadable && !after?.unreadable) return made;
    const unreadable = [...new Set([...before?.unreadable ?? [], ...after?.unreadable ?? []])];
    return { ...made, isUnstorable: true, unreadable };
  };

  // Of each statement's partitions those that no other of it stands above.
  const flushTruncates = (emit: (change: Change) => void): void => {
    if (truncated.length === 0) return;
    for (const own of byStatement(truncated)) {
      for (const { root, leaf, position, context } of own) {
        const above = catalog.table(leaf, position)?.ancestors ?? [];
        if (own.some((other) => above.includes(other.leaf))) continue;
        const table = unknownTable(root, catalog, position) ?? tableAt(root, position);
        if (table) emit(change(table, "TRUNCATE", position, index++, context, undefined, undefined));
      }
    }
    truncated = [];
  };

  /** Partitions go with a root that the same statement names. */
  const withdrawTruncates = (roots: readonly number[]): void => {
    const statements = byStatement(truncated);
    const last = statements.pop() ?? [];
    truncated = [...statements.flat(), ...last.filter(({ root }) => !roots.includes(root))];
  };

  const push = (message: PgoutputMessage, lsn: Lsn, emit: (change: Change) => void): void => {
    switch (message.kind) {
      case "begin":
        return begin(message);
      case "relation":
        tables.set(message.oid, new Table(message, catalog, lsn));
        return;
      case "message": {
        if (!message.isTransactional || message.prefix !== "_bemi" || !transaction) return;
        const parsed = parseMessage(message.content);
        if (!parsed) {
          flushTruncates(emit);
          if (catalog.acceptsBareContexts) bare = parseBareContext(message.content) ?? bare;
          return takeSnapshot(message.content, lsn, emit);
        }
        if (isForged(parsed, lsn)) return;
        const { root, leaf, operation, context } = parsed;
        const own = (messages.get(root) ?? []).filter((known) => known.operation !== operation);
        messages.set(root, [...own, { operation, context, order: order++, at: index }]);
        // PostgreSQL does not publish the TRUNCATE of a single partition; the message tells of it.
        if (operation === "TRUNCATE" && leaf !== root) {
          // Ends with the database's own facts. Of the table's other rows it says nothing.
          const marked = context.replace(/\}\}$/, ', "partition": true}}');
          truncated.push({ root, leaf, position: lsn, context: marked });
        }
        return;
      }
      case "insert": {
        flushTruncates(emit);
        const fallback = otherwise();
        const table = tableAt(message.relation, lsn);
        if (!table) return;
        const attributed = latest(table, ["INSERT", "UPDATE"]);
        // The last, right behind which its other half comes: those before it have none. Where a trigger inserts rows of its
        // own, the message of these is the latest, and none comes between the halves.
        const waiting = moves.get(table.root);
        const isMoved = attributed?.operation === "UPDATE" || waiting?.at(-1)?.order === order;
        const half = isMoved ? waiting?.pop() : undefined;
        const after = table.image(message.after);
        if (half) {
          emit(change(table, "UPDATE", half.position, half.index, half.context, half.before, after));
          return;
        }
        const context = (attributed?.operation === "INSERT" ? attributed : latest(table, ["INSERT"]))
          ?.context;
        emit(change(table, "CREATE", lsn, index++, context ?? fallback, undefined, after));
        return;
      }
      case "update": {
        flushTruncates(emit);
        const fallback = otherwise();
        const table = tableAt(message.relation, lsn);
        if (!table) return;
        const before = message.before && !message.beforeIsKey ? message.before : undefined;
        if (before && table.isSame(before, message.after)) return;
        const context = latest(table, ["UPDATE"])?.context ?? fallback;
        const old = message.before && table.image(message.before, undefined, message.beforeIsKey);
        const after = table.image(message.after, before);
        emit(change(table, "UPDATE", lsn, index++, noteUnchanged(context, after.values, table), old, after));
        return;
      }
      case "delete": {
        flushTruncates(emit);
        const fallback = otherwise();
        const table = tableAt(message.relation, lsn);
        if (!table) return;
        const attributed = latest(table, table.facts?.isPartitioned ? ["DELETE", "UPDATE"] : ["DELETE"]);
        const before = table.image(message.before, undefined, message.beforeIsKey);
        const context = attributed?.context ?? fallback;
        const isDoubtful = table.facts?.isPartitioned === true && attributed?.operation === "DELETE" &&
          isMergeThatMoves(table);
        if (attributed?.operation === "UPDATE" || isDoubtful) {
          const waiting = moves.get(table.root) ?? [];
          // The other half would have come right behind it.
          if (waiting.at(-1)?.isDoubtful) emitAsDelete(waiting.pop() as HalfMove, emit);
          waiting.push({ table, before, position: lsn, index: index++, context, order, isDoubtful });
          moves.set(table.root, waiting);
          return;
        }
        emit(change(table, "DELETE", lsn, index++, context, before, undefined));
        return;
      }
      case "truncate":
        withdrawTruncates(message.relations);
        flushTruncates(emit);
        for (const oid of message.relations) {
          const table = tableAt(oid, lsn);
          if (!table) continue;
          const context = latest(table, ["TRUNCATE"])?.context ?? UNATTRIBUTED;
          emit(change(table, "TRUNCATE", lsn, index++, context, undefined, undefined));
        }
        return;
      case "commit":
        flushTruncates(emit);
        // The other half never came, as when a trigger kept the row from being inserted again.
        for (const waiting of moves.values()) {
          for (const half of waiting) emitAsDelete(half, emit);
        }
        transaction = undefined;
        return;
      case "origin":
      case "type":
        return;
    }
  };
  const refresh = (): void => {
    for (const [oid, { relation }] of tables) tables.set(oid, new Table(relation, catalog, 0n));
  };
  return { push, refresh };
}

/**
 * A statement speaks once of each partition, in one context. Counted from the end: in `truncate todos_2; truncate todos`
 * the second speaks of it again, behind others that are its own.
 */
function byStatement(truncated: readonly TruncatedPartition[]): TruncatedPartition[][] {
  const statements: TruncatedPartition[][] = [];
  for (const one of truncated.toReversed()) {
    const own = statements[0];
    if (own?.[0]?.context === one.context && !own.some(({ leaf }) => leaf === one.leaf)) own.unshift(one);
    else statements.unshift([one]);
  }
  return statements;
}
