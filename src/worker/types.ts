import { inSchema } from "../install/schema.ts";
import type { Source } from "./source.ts";
import { STRING, type ValueType } from "./values.ts";

// OIDs that never change (pg_type.dat).
const BUILT_IN: ReadonlyMap<number, ValueType> = new Map([
  ...[16].map((oid) => [oid, { kind: "boolean" }] as const),
  ...[20, 21, 23, 1700].map((oid) => [oid, { kind: "number" }] as const),
  ...[700, 701].map((oid) => [oid, { kind: "float" }] as const),
  ...[114, 3802].map((oid) => [oid, { kind: "json" }] as const),
  [1114, { kind: "timestamp" }],
  [1184, { kind: "timestamptz" }],
  // text, varchar, bpchar, name, bytea, uuid, date, time, timetz, interval, inet: the commonest that are strings.
  ...[25, 1043, 1042, 19, 17, 2950, 1082, 1083, 1266, 1186, 869].map((oid) => [oid, STRING] as const),
]);

/** What the catalog says of a type that is more than a string: see describe_types() in SQL. */
export interface TypeRow {
  readonly oid: number;
  readonly kind: string;
  readonly name: string;
  readonly base: number;
  readonly element: number;
  readonly delimiter: string;
  readonly isArray: boolean;
  readonly attributes: readonly { readonly name: string; readonly type: number }[];
}

/** Knows how the text of each type becomes JSON; asks the catalog once for each type it has not met. */
export interface TypeCatalog {
  /** Makes sure that the types are known. */
  load(oids: readonly number[]): Promise<void>;
  /**
   * A type that is gone, or was never loaded, is a string.
   *
   * @param then what was known of types when the value was written
   */
  get(oid: number, then?: readonly TypeRow[]): ValueType;
  /** Has everything asked anew. */
  forget(): void;
}

export function typeCatalog({ db, schema }: Pick<Source, "db" | "schema">): TypeCatalog {
  let known = new Map<number, ValueType>(BUILT_IN);
  const load = async (oids: readonly number[]): Promise<void> => {
    const missing = [...new Set(oids)].filter((oid) => !known.has(oid));
    if (missing.length === 0) return;
    const [row] = await db.query<{ types: string }>(
      inSchema(schema, 'select "bemi".describe_types($1::text::oid[])::text as types'),
      [`{${missing.join(",")}}`],
    );
    const rows = JSON.parse(row?.types ?? "[]") as TypeRow[];
    for (const oid of missing) known.set(oid, resolve(oid, rows));
  };
  return {
    load,
    get: (oid, then = []) => {
      const type = resolve(oid, then);
      return type === STRING ? known.get(oid) ?? STRING : type;
    },
    forget: () => void (known = new Map(BUILT_IN)),
  };
}

function resolve(oid: number, rows: readonly TypeRow[]): ValueType {
  const builtIn = BUILT_IN.get(oid);
  if (builtIn) return builtIn;
  const row = rows.findLast((one) => one.oid === oid);
  return row ? describe(row, (other) => resolve(other, rows)) : STRING;
}

function describe(row: TypeRow, resolve: (oid: number) => ValueType): ValueType {
  if (row.kind === "d") return resolve(row.base);
  if (row.name === "int2vector" || row.name === "oidvector") {
    return { kind: "vector", element: resolve(row.element) };
  }
  if (row.isArray) return { kind: "array", element: resolve(row.element), delimiter: row.delimiter };
  if (row.kind === "c") {
    return {
      kind: "composite",
      fields: row.attributes.map(({ name, type }) => ({ name, type: resolve(type) })),
    };
  }
  if (row.name === "hstore") return { kind: "hstore" };
  return STRING;
}
