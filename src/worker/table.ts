import { mapNumbers } from "../json-numbers.ts";
import { type Column, type Lsn, type Relation, type Tuple, UNCHANGED } from "./decode.ts";
import type { TypeRow } from "./types.ts";
import { plainNumber, tryToJson, type ValueType } from "./values.ts";

/** What a tracked table was like in a stretch of the WAL; names are those in the stream. */
export interface TableFacts {
  readonly from: Lsn;
  /** Absent where they hold to this day. */
  readonly until?: Lsn;
  /** Whether its names were noted when it came to be called so. */
  readonly isNoted: boolean;
  readonly schema: string;
  readonly name: string;
  readonly keys: readonly string[];
  readonly ignored: readonly string[];
  readonly masked: readonly string[];
  /** Whether it is a partitioned table or one of its partitions. */
  readonly isPartitioned: boolean;
  /** Inheritance parents, nearest first: a statement that names one of them writes this table's rows too. */
  readonly ancestors: readonly number[];
  /** The types of its columns, as far as they are not built in and plain. */
  readonly types: readonly TypeRow[];
}

export interface Catalog {
  table(oid: number, lsn: Lsn): TableFacts | undefined;
  /** @param known what is known of the table that has a column of the type */
  type(oid: number, known: TableFacts | undefined): ValueType;
  readonly seal?: Seal | undefined;
  /** Whether a row that has no context message takes the bare JSON that another Bemi's trigger wrote before it. */
  readonly acceptsBareContexts?: boolean | undefined;
}

/** The owner's secret. */
export interface Seal {
  readonly secret: string;
  /** A context message from there on that lacks the secret is somebody's forgery; `undefined` while not sealed. */
  readonly enforcedFrom: Lsn | undefined;
}

/** A row: as it is stored, and as it came. */
export interface Image {
  readonly json: string;
  readonly values: Tuple;
  /** Columns whose text is not of their type; they hold the text. Absent where there are none. */
  readonly unreadable?: readonly string[];
}

interface ColumnPlan {
  readonly name: string;
  readonly label: string;
  readonly type: ValueType;
  readonly isHidden: boolean;
  readonly isIgnored: boolean;
}

/** A relation as it is in the stream, with what the catalog adds. */
export class Table {
  readonly relation: Relation;
  readonly facts: TableFacts | undefined;
  /** The relations whose messages cover its rows. */
  readonly family: readonly number[];
  readonly hasJson: boolean;
  readonly #columns: readonly ColumnPlan[];
  readonly #keys: readonly number[];

  constructor(relation: Relation, catalog: Catalog, lsn: Lsn) {
    this.relation = relation;
    this.facts = catalog.table(relation.oid, lsn);
    const { masked = [], ignored = [], ancestors = [] } = this.facts ?? {};
    this.family = [relation.oid, ...ancestors];
    this.#columns = relation.columns.map((column: Column) => ({
      name: column.name,
      label: `${JSON.stringify(column.name)}: `,
      type: catalog.type(column.type, this.facts),
      isHidden: masked.includes(column.name),
      isIgnored: ignored.includes(column.name),
    }));
    this.hasJson = this.#columns.some(({ type, isHidden }) => !isHidden && holdsJson(type));
    const keys = this.facts?.keys ??
      relation.columns.filter((c) => c.isKey && relation.identity !== "f").map((c) => c.name);
    this.#keys = keys.map((name) => relation.columns.findIndex((column) => column.name === name));
  }

  /** PostgreSQL may go on with the name that a schema had before it was renamed. */
  get schema(): string {
    return this.facts?.isNoted ? this.facts.schema : this.relation.schema;
  }

  /** It may go on with a partitioned table's former name too, which it sent for the same partition's rows. */
  get name(): string {
    return this.facts?.isNoted ? this.facts.name : this.relation.name;
  }

  /** The table that a partition is of, or the table itself. */
  get root(): number {
    return this.facts?.isPartitioned ? this.family.at(-1) ?? this.relation.oid : this.relation.oid;
  }

  /** Whether this is what the table was like there. */
  covers(lsn: Lsn): boolean {
    const { facts } = this;
    return !facts || facts.from <= lsn && (facts.until === undefined || lsn < facts.until);
  }

  /** A row as a JSON object. An unchanged TOAST value is taken from the image before, where that is whole. */
  image(tuple: Tuple, before?: Tuple, isKey = false): Image {
    let json = "{";
    let unreadable: string[] | undefined;
    const values = before ? tuple.map((value, i) => value === UNCHANGED ? before[i] ?? null : value) : tuple;
    for (let i = 0; i < this.#columns.length; i++) {
      const { name, label, type, isHidden } = this.#columns[i] as ColumnPlan;
      const value = values[i];
      if (isHidden || value === UNCHANGED || value === undefined) continue;
      if (isKey && value === null && !this.relation.columns[i]?.isKey) continue;
      if (json.length > 1) json += ", ";
      let read: string | undefined = "null";
      if (value !== null && (read = tryToJson(value, type)) === undefined) {
        (unreadable ??= []).push(name);
        read = JSON.stringify(value);
      }
      json += label + read;
    }
    json += "}";
    return unreadable ? { json, values, unreadable } : { json, values };
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
      return typeof value === "string" && type ? tryToJson(value, type) ?? JSON.stringify(value) : "null";
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

// Of values whose texts differ, as jsonb compares what to_jsonb makes of both: 1.0 equals 1.00, blanks in a json count for
// nothing, and its null is SQL's.
function isEqualValue(a: string | null, b: string | null, type: ValueType): boolean {
  if (!hasVariousTexts(type)) return false;
  if (a === null || b === null) return type.kind === "json" && (a ?? b)?.trim() === "null";
  if (type.kind === "number" || type.kind === "float") return comparableNumber(a) === comparableNumber(b);
  const [one, other] = [tryToJson(a, type), tryToJson(b, type)];
  try {
    return one !== undefined && other !== undefined && comparable(one) === comparable(other);
  } catch {
    // Nested too deeply, or numbers that are too long.
    return false;
  }
}

/** Whether one value can have several texts. */
function hasVariousTexts(type: ValueType): boolean {
  if (type.kind === "array") return hasVariousTexts(type.element);
  if (type.kind === "composite") return type.fields.some((field) => hasVariousTexts(field.type));
  return type.kind === "number" || type.kind === "float" || type.kind === "json";
}

function comparableNumber(text: string): string {
  const plain = plainNumber(text).replace(/^(-?)0+(?=\d)/, "$1");
  const trimmed = plain.includes(".") ? plain.replace(/\.?0+$/, "") : plain;
  return trimmed === "-0" ? "0" : trimmed;
}

/** Numbers become strings that `jsonb` refuses, and so no other's, for JavaScript would round them. */
function comparable(json: string): string {
  return canonical(JSON.parse(
    mapNumbers(json, (number) => `"\\u0000${comparableNumber(number)}"`),
  ));
}

function canonical(value: unknown): string {
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`;
  const members = Object.entries(value).sort(([a], [b]) => a < b ? -1 : 1);
  return `{${members.map(([key, member]) => `${JSON.stringify(key)}:${canonical(member)}`).join()}}`;
}

// Said explicitly: such a column is neither NULL nor known. Only where the identity is not FULL.
export function noteUnchanged(context: string, values: Tuple, table: Table): string {
  if (!values.includes(UNCHANGED)) return context;
  const names = values.flatMap((value, i) => value === UNCHANGED ? [table.columnName(i)] : []);
  return context.replace(/\}\}$/, `, "unchanged": ${JSON.stringify(names)}}}`);
}

// A partition's TRUNCATE, or a baseline's row, in a session that has seen no row: the name comes from the catalog.
export function unknownTable(oid: number, catalog: Catalog, lsn: Lsn): Table | undefined {
  const facts = catalog.table(oid, lsn);
  if (!facts) return undefined;
  const { schema, name } = facts;
  return new Table({ kind: "relation", oid, schema, name, identity: "f", columns: [] }, catalog, lsn);
}
