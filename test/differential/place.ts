import { COLUMN_TYPES } from "./column-types.ts";
import type { ColumnSpec } from "./scenario.ts";

/** Where a scenario is written down as SQL: what depends on the server, and what was learned of its types. */
export interface Place {
  /** Major version. */
  readonly version: number;
  /** Expressions by the name of a type in the catalog, `[]` behind it for an array. */
  readonly values: Map<string, readonly string[]>;
}

export function newPlace(version: number, encoding: string): Place {
  const values = new Map<string, readonly string[]>();
  for (const [name, type] of Object.entries(COLUMN_TYPES)) {
    // An escape that the encoding lacks is none that jsonb can hold.
    const own = encoding === "UTF8" ? type.values : type.values.filter((value) => !value.includes("\\u"));
    values.set(name, own);
    values.set(`${name}[]`, arraysOf(own, type.sql));
  }
  return { version, values };
}

/** Stands for the scenario's schema, whatever that is called by then. */
export const SCHEMA = "@";

/** The name that the catalog has for a column's type. Wrapped types are one for each type, not for each column. */
export function catalogName({ type, wrap }: ColumnSpec, place: Place): string {
  const name = {
    none: type,
    array: `${type}[]`,
    domain: `d_${type}`,
    domains: `d_${type}[]`,
    "domain-array": `da_${type}`,
    composite: `c_${type}`,
    composites: `c_${type}[]`,
    deep: `cc_${type}`,
  }[wrap];
  if (!place.values.has(name)) throw new Error(`No values of ${name}`);
  return name;
}

/** A column's type, and what has to be made before it is there. */
export function columnType(spec: ColumnSpec, place: Place): { type: string; before: readonly string[] } {
  const { type, wrap } = spec;
  const { values } = place;
  const known = COLUMN_TYPES[type];
  if (!known) throw new Error(`No type ${type}`);
  const sql = known.sql;
  const own = values.get(type) ?? [];
  switch (wrap) {
    case "none":
      return { type: sql, before: [] };
    case "array":
      return { type: `${sql}[]`, before: [] };
    case "domain":
    case "domains": {
      const name = `d_${type}`;
      const isNew = !values.has(name);
      values.set(name, own);
      values.set(`${name}[]`, arraysOf(own, `${SCHEMA}.${name}`));
      return {
        type: `${SCHEMA}.${name}${wrap === "domains" ? "[]" : ""}`,
        before: isNew ? [`create domain ${SCHEMA}.${name} as ${sql}`] : [],
      };
    }
    case "domain-array": {
      const name = `da_${type}`;
      const isNew = !values.has(name);
      values.set(name, values.get(`${type}[]`) ?? []);
      return {
        type: `${SCHEMA}.${name}`,
        before: isNew ? [`create domain ${SCHEMA}.${name} as ${sql}[]`] : [],
      };
    }
    case "deep": {
      const { type: inner, before } = columnType({ ...spec, wrap: "composite" }, place);
      const name = `cc_${type}`;
      const isNew = !values.has(name);
      const [one = "null", two = one] = (values.get(`c_${type}`) ?? []).map((row) => `(${row})::${inner}`);
      values.set(name, [
        `row(${two}, array[${one}, null, ${two}])`,
        `row(${one}, array[array[${two}], array[${one}]])`,
        "row(null, '{}')",
      ]);
      return {
        type: `${SCHEMA}.${name}`,
        before: isNew
          ? [
            ...before,
            `create domain ${SCHEMA}.dc_${type} as ${inner}`,
            `create type ${SCHEMA}.${name} as (x ${SCHEMA}.dc_${type}, y ${inner}[])`,
          ]
          : before,
      };
    }
    case "composite":
    case "composites": {
      const name = `c_${type}`;
      const isNew = !values.has(name);
      const rows = own.map((value, i) =>
        i % 3 === 2
          ? `row(${value}, null, null)`
          : `row(${value}, 'b,"(\\c', array[${value}, null]::${sql}[])`
      );
      values.set(name, [...rows, "row(null, null, null)", "row(null, '', '{}')"]);
      values.set(`${name}[]`, arraysOf(rows, `${SCHEMA}.${name}`));
      return {
        type: `${SCHEMA}.${name}${wrap === "composites" ? "[]" : ""}`,
        before: isNew ? [`create type ${SCHEMA}.${name} as (a ${sql}, "b c" text, d ${sql}[])`] : [],
      };
    }
  }
}

function arraysOf(values: readonly string[], type: string): string[] {
  const cast = (value: string): string => `(${value})::${type}`;
  const all = values.map(cast);
  const [one = "null", two = one] = all;
  return [
    `array[${all.join(", ")}, null]`,
    "'{}'",
    `array[array[${one}, ${two}], array[null, ${one}]]`,
    `array[array[array[${two}]]]`,
    // Which jsonb does not keep.
    `'[0:1]=' || (array[${one}, ${two}])::text`,
    `array[${one}]`,
    "array[null]",
  ];
}

export function quote(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
