import { type ContextMessage, hasUnstorableEscape, parseMessage } from "./message.ts";
import {
  type Column,
  type Lsn,
  type PgoutputMessage,
  type Relation,
  type Tuple,
  UNCHANGED,
} from "./decode.ts";
import { toJson, type ValueType } from "./values.ts";

/** What the catalog says of a tracked table today; names are those in the stream. */
export interface TableFacts {
  readonly schema: string;
  readonly name: string;
  readonly keys: readonly string[];
  readonly ignored: readonly string[];
  readonly masked: readonly string[];
  readonly isPartitioned: boolean;
  /** Inheritance parents, nearest first: a statement that names one of them writes this table's rows too. */
  readonly ancestors: readonly number[];
}

/** One change, stitched with its context. `before`, `after` and `context` are JSON objects as text. */
export interface Change {
  readonly transaction: Transaction;
  /** From 0, in the order of the stream. */
  readonly index: number;
  readonly position: Lsn;
  readonly schema: string;
  readonly table: string;
  readonly operation: "CREATE" | "UPDATE" | "DELETE" | "TRUNCATE";
  readonly key: string | null;
  readonly formerKey: string | null;
  readonly before: string;
  readonly after: string;
  readonly context: string;
  /** Whether jsonb is known to refuse it. */
  readonly isUnstorable: boolean;
}

export interface Transaction {
  readonly commitLsn: Lsn;
  /** µs since 2000-01-01 UTC. */
  readonly committedAt: bigint;
  readonly xid: number;
}

export interface Catalog {
  table(oid: number): TableFacts | undefined;
  type(oid: number): ValueType;
  /** A message from there on that lacks the secret is somebody's forgery. */
  readonly seal?: Seal | undefined;
}

/** The owner's secret, as `bemi init --seal` made it. */
export interface Seal {
  readonly secret: string;
  readonly enforcedFrom: Lsn;
}

/** Takes the messages of one decoding session, in order. */
export interface Stitcher {
  /** Passes each change on as soon as it is known. The types of a relation have to be loaded before it is pushed. */
  push(message: PgoutputMessage, lsn: Lsn, emit: (change: Change) => void): void;
}

type Operation = ContextMessage["operation"];

interface Attributed {
  readonly context: string;
  readonly operation: Operation;
  readonly order: number;
}

interface Image {
  readonly json: string;
  readonly values: Tuple;
}

interface HalfMove {
  readonly table: Table;
  readonly before: Image;
  readonly position: Lsn;
  readonly index: number;
  readonly context: string;
}

/** What a row gets that no message of its transaction covers: triggers were off, or it was not tracked yet. */
export const UNATTRIBUTED = '{"db": {"context_error": "no message"}}';

/**
 * Puts together transactions, rows and contexts. A row takes the latest message of its transaction for its table and
 * operation. An UPDATE that moves a row to another partition arrives as DELETE and INSERT, and is made one again.
 */
export function stitcher(catalog: Catalog): Stitcher {
  const tables = new Map<number, Table>();
  let transaction: Transaction | undefined;
  let index = 0;
  let order = 0;
  const messages = new Map<number, Attributed[]>();
  const moves = new Map<number, HalfMove[]>();
  const truncated = new Map<number, { position: Lsn; context: string }>();

  const isForged = ({ seal }: ContextMessage, lsn: Lsn): boolean =>
    catalog.seal !== undefined && lsn >= catalog.seal.enforcedFrom && seal !== catalog.seal.secret;

  const begin = (next: Transaction): void => {
    transaction = next;
    index = 0;
    order = 0;
    messages.clear();
    moves.clear();
    truncated.clear();
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
    return {
      transaction: transaction as Transaction,
      index: at,
      position,
      schema: table.relation.schema,
      table: table.relation.name,
      operation,
      key,
      formerKey: former === key ? null : former,
      before: before?.json ?? "{}",
      after: after?.json ?? "{}",
      context,
      isUnstorable: table.hasJson &&
        (hasUnstorableEscape(before?.json ?? "") || hasUnstorableEscape(after?.json ?? "")),
    };
  };

  const flushTruncates = (emit: (change: Change) => void): void => {
    if (truncated.size === 0) return;
    for (const [oid, { position, context }] of truncated) {
      const table = tables.get(oid) ?? unknownTable(oid, catalog);
      if (table) emit(change(table, "TRUNCATE", position, index++, context, undefined, undefined));
    }
    truncated.clear();
  };

  const push = (message: PgoutputMessage, lsn: Lsn, emit: (change: Change) => void): void => {
    switch (message.kind) {
      case "begin":
        return begin(message);
      case "relation":
        tables.set(message.oid, new Table(message, catalog));
        return;
      case "message": {
        if (!message.isTransactional || message.prefix !== "_bemi" || !transaction) return;
        const parsed = parseMessage(message.content);
        if (!parsed || isForged(parsed, lsn)) return;
        const { root, operation, context } = parsed;
        const own = (messages.get(root) ?? []).filter((known) => known.operation !== operation);
        messages.set(root, [...own, { operation, context, order: order++ }]);
        // PostgreSQL does not publish the TRUNCATE of a single partition; the message tells of it.
        if (operation === "TRUNCATE" && parsed.isLeaf) truncated.set(root, { position: lsn, context });
        return;
      }
      case "insert": {
        flushTruncates(emit);
        const table = tables.get(message.relation);
        if (!table) return;
        const attributed = latest(table, ["INSERT", "UPDATE"]);
        const half = attributed?.operation === "UPDATE" ? moves.get(message.relation)?.shift() : undefined;
        const after = table.image(message.after);
        if (half) {
          emit(change(table, "UPDATE", half.position, half.index, half.context, half.before, after));
          return;
        }
        const context = (attributed?.operation === "INSERT" ? attributed : latest(table, ["INSERT"]))
          ?.context;
        emit(change(table, "CREATE", lsn, index++, context ?? UNATTRIBUTED, undefined, after));
        return;
      }
      case "update": {
        flushTruncates(emit);
        const table = tables.get(message.relation);
        if (!table) return;
        const before = message.before && !message.beforeIsKey ? message.before : undefined;
        if (before && table.isSame(before, message.after)) return;
        const context = latest(table, ["UPDATE"])?.context ?? UNATTRIBUTED;
        const old = message.before && table.image(message.before, undefined, message.beforeIsKey);
        const after = table.image(message.after, before);
        emit(change(table, "UPDATE", lsn, index++, noteUnchanged(context, after.values, table), old, after));
        return;
      }
      case "delete": {
        flushTruncates(emit);
        const table = tables.get(message.relation);
        if (!table) return;
        const attributed = latest(table, table.facts?.isPartitioned ? ["DELETE", "UPDATE"] : ["DELETE"]);
        const before = table.image(message.before, undefined, message.beforeIsKey);
        const context = attributed?.context ?? UNATTRIBUTED;
        if (attributed?.operation === "UPDATE") {
          const waiting = moves.get(message.relation) ?? [];
          waiting.push({ table, before, position: lsn, index: index++, context });
          moves.set(message.relation, waiting);
          return;
        }
        emit(change(table, "DELETE", lsn, index++, context, before, undefined));
        return;
      }
      case "truncate":
        for (const oid of message.relations) {
          truncated.delete(oid);
          const table = tables.get(oid);
          if (!table) continue;
          const context = latest(table, ["TRUNCATE"])?.context ?? UNATTRIBUTED;
          emit(change(table, "TRUNCATE", lsn, index++, context, undefined, undefined));
        }
        return;
      case "commit":
        flushTruncates(emit);
        // The other half never came, as when a trigger kept the row from being inserted again.
        for (const waiting of moves.values()) {
          for (const { table, position, index: at, context, before } of waiting) {
            emit(change(table, "DELETE", position, at, context, before, undefined));
          }
        }
        transaction = undefined;
        return;
      case "origin":
      case "type":
        return;
    }
  };
  return { push };
}

interface ColumnPlan {
  readonly name: string;
  readonly label: string;
  readonly type: ValueType;
  readonly isHidden: boolean;
  readonly isIgnored: boolean;
}

/** A relation as it is in the stream, with what the catalog adds. */
class Table {
  readonly relation: Relation;
  readonly facts: TableFacts | undefined;
  /** The relations whose messages cover its rows. */
  readonly family: readonly number[];
  readonly hasJson: boolean;
  readonly #columns: readonly ColumnPlan[];
  readonly #keys: readonly number[];

  constructor(relation: Relation, catalog: Catalog) {
    this.relation = relation;
    this.facts = catalog.table(relation.oid);
    const { masked = [], ignored = [], ancestors = [] } = this.facts ?? {};
    this.family = [relation.oid, ...ancestors];
    this.#columns = relation.columns.map((column: Column) => ({
      name: column.name,
      label: `${JSON.stringify(column.name)}: `,
      type: catalog.type(column.type),
      isHidden: masked.includes(column.name),
      isIgnored: ignored.includes(column.name),
    }));
    this.hasJson = this.#columns.some(({ type, isHidden }) => !isHidden && holdsJson(type));
    const keys = this.facts?.keys ??
      relation.columns.filter((c) => c.isKey && relation.identity !== "f").map((c) => c.name);
    this.#keys = keys.map((name) => relation.columns.findIndex((column) => column.name === name));
  }

  /** A row as a JSON object. An unchanged TOAST value is taken from the image before, where that is whole. */
  image(tuple: Tuple, before?: Tuple, isKey = false): Image {
    let json = "{";
    const values = before ? tuple.map((value, i) => value === UNCHANGED ? before[i] ?? null : value) : tuple;
    for (let i = 0; i < this.#columns.length; i++) {
      const { label, type, isHidden } = this.#columns[i] as ColumnPlan;
      const value = values[i];
      if (isHidden || value === UNCHANGED || value === undefined) continue;
      if (isKey && value === null && !this.relation.columns[i]?.isKey) continue;
      if (json.length > 1) json += ", ";
      json += label + (value === null ? "null" : toJson(value, type));
    }
    return { json: json + "}", values };
  }

  /** Whether nothing of interest differs. */
  isSame(before: Tuple, after: Tuple): boolean {
    for (let i = 0; i < this.#columns.length; i++) {
      const { type, isIgnored } = this.#columns[i] as ColumnPlan;
      const value = after[i];
      if (isIgnored || value === UNCHANGED || value === before[i]) continue;
      if (!isEqualValue(before[i] as string | null, value as string | null, type)) return false;
    }
    return true;
  }

  /** The primary key as text: one column's, or a JSON array in key order; `null` without one. */
  key(values: Tuple): string | null {
    if (this.#keys.length === 0) return null;
    const parts = this.#keys.map((i) => {
      const value = values[i];
      const type = this.#columns[i]?.type;
      return typeof value === "string" && type ? toJson(value, type) : "null";
    });
    if (parts.length > 1) return `[${parts.join(", ")}]`;
    const [only = "null"] = parts;
    if (only === "null") return null;
    return only.startsWith('"') ? JSON.parse(only) as string : only;
  }

  columnName(index: number): string {
    return this.#columns[index]?.name ?? "";
  }
}

function holdsJson(type: ValueType): boolean {
  if (type.kind === "array") return holdsJson(type.element);
  if (type.kind === "composite") return type.fields.some((field) => holdsJson(field.type));
  return type.kind === "json";
}

// As jsonb compares: 1.0 equals 1.00, and blanks in a json count for nothing.
function isEqualValue(a: string | null, b: string | null, type: ValueType): boolean {
  if (a === null || b === null) return a === b;
  if (type.kind === "number") return plainNumber(a) === plainNumber(b);
  if (type.kind !== "json") return false;
  try {
    return canonical(JSON.parse(a)) === canonical(JSON.parse(b)) && !/\d{16}|[eE]/.test(a + b);
  } catch {
    return false;
  }
}

function plainNumber(text: string): string {
  return text.includes(".") && !/e/i.test(text) ? text.replace(/\.?0+$/, "") : text;
}

function canonical(value: unknown): string {
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`;
  const members = Object.entries(value).sort(([a], [b]) => a < b ? -1 : 1);
  return `{${members.map(([key, member]) => `${JSON.stringify(key)}:${canonical(member)}`).join()}}`;
}

// Said explicitly: such a column is neither NULL nor known. Only where the identity is not FULL.
function noteUnchanged(context: string, values: Tuple, table: Table): string {
  if (!values.includes(UNCHANGED)) return context;
  const names = values.flatMap((value, i) => value === UNCHANGED ? [table.columnName(i)] : []);
  return context.replace(/\}\}$/, `, "unchanged": ${JSON.stringify(names)}}}`);
}

// A partition's TRUNCATE in a session that has seen no row of its root: the name comes from the catalog.
function unknownTable(oid: number, catalog: Catalog): Table | undefined {
  const facts = catalog.table(oid);
  if (!facts) return undefined;
  const { schema, name } = facts;
  return new Table({ kind: "relation", oid, schema, name, identity: "f", columns: [] }, catalog);
}
