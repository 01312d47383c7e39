import type { Database } from "../database/port.ts";
import { STRING, type ValueType } from "./values.ts";

// OIDs that never change (pg_type.dat).
const BUILT_IN: ReadonlyMap<number, ValueType> = new Map([
  ...[16].map((oid) => [oid, { kind: "boolean" }] as const),
  ...[20, 21, 23, 700, 701, 1700].map((oid) => [oid, { kind: "number" }] as const),
  ...[114, 3802].map((oid) => [oid, { kind: "json" }] as const),
  [1114, { kind: "timestamp" }],
  [1184, { kind: "timestamptz" }],
  // text, varchar, bpchar, name, bytea, uuid, date, time, timetz, interval, inet: the commonest that are strings.
  ...[25, 1043, 1042, 19, 17, 2950, 1082, 1083, 1266, 1186, 869].map((oid) => [oid, STRING] as const),
]);

interface TypeRow {
  readonly oid: string;
  readonly kind: string;
  readonly name: string;
  readonly base: string;
  readonly element: string;
  readonly delimiter: string;
  readonly is_array: boolean;
  readonly attributes: string;
}

/** Knows how the text of each type becomes JSON; asks the catalog once for each type it has not met. */
export interface TypeCatalog {
  /** Makes sure that the types are known. */
  load(oids: readonly number[]): Promise<void>;
  /** A type that is gone, or was never loaded, is a string. */
  get(oid: number): ValueType;
  /** Has everything asked anew. */
  forget(): void;
}

export function typeCatalog(db: Database): TypeCatalog {
  let known = new Map<number, ValueType>(BUILT_IN);
  const load = async (oids: readonly number[]): Promise<void> => {
    const missing = [...new Set(oids)].filter((oid) => !known.has(oid));
    if (missing.length === 0) return;
    const rows = await db.query<TypeRow>(CATALOG, [`{${missing.join(",")}}`]);
    const byOid = new Map(rows.map((row) => [Number(row.oid), row]));
    const resolve = (oid: number): ValueType => {
      const found = known.get(oid);
      if (found) return found;
      const row = byOid.get(oid);
      const type = row ? describe(row, resolve) : STRING;
      known.set(oid, type);
      return type;
    };
    for (const oid of missing) resolve(oid);
  };
  return { load, get: (oid) => known.get(oid) ?? STRING, forget: () => void (known = new Map(BUILT_IN)) };
}

function describe(row: TypeRow, resolve: (oid: number) => ValueType): ValueType {
  if (row.kind === "d") return resolve(Number(row.base));
  if (row.is_array) return { kind: "array", element: resolve(Number(row.element)), delimiter: row.delimiter };
  if (row.kind === "c") {
    const attributes = JSON.parse(row.attributes) as { name: string; type: number }[];
    return { kind: "composite", fields: attributes.map(({ name, type }) => ({ name, type: resolve(type) })) };
  }
  if (row.name === "hstore") return { kind: "hstore" };
  return STRING;
}

// With all that they are made of. typsubscript tells true arrays from point, name and oidvector, which are not: to_jsonb
// takes int2vector and oidvector for arrays too, but no user's column is of those.
const CATALOG = `
  with recursive needed as (
    select unnest($1::text::oid[]) as oid
    union
    select d.oid from needed n join pg_type t on t.oid = n.oid,
      lateral (
        select t.typbasetype as oid where t.typtype = 'd'
        union all
        select t.typelem where t.typcategory = 'A'
        union all
        select a.atttypid from pg_attribute a where a.attrelid = t.typrelid and t.typtype = 'c' and a.attnum > 0 and not a.attisdropped
      ) d
  )
  select t.oid::text, t.typtype::text as kind, t.typname::text as name, t.typbasetype::text as base, t.typelem::text as element,
    coalesce(e.typdelim, ',')::text as delimiter,
    t.typcategory = 'A' and t.typelem <> 0 and t.typlen = -1 as is_array,
    coalesce((select json_agg(json_build_object('name', a.attname, 'type', a.atttypid::bigint) order by a.attnum)
      from pg_attribute a where a.attrelid = t.typrelid and t.typtype = 'c' and a.attnum > 0 and not a.attisdropped), '[]')::text as attributes
  from needed n join pg_type t on t.oid = n.oid left join pg_type e on e.oid = t.typelem`;
