import { COLUMN_TYPES } from "./column-types.ts";
import type { ColumnSpec, Scenario, TableSpec } from "./scenario.ts";

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
  values.set("int4[]", [...values.get("int4[]") ?? [], "'[0:1]={7,8}'"]);
  return { version, values };
}

/** Stands for the scenario's schema, whatever that is called by then. */
const schema = "@";

/** The statements that make a scenario's tables. The columns of a key are called `id` and `part`. */
export function createStatements(scenario: Scenario, place: Place): string[] {
  return [
    `create schema ${schema}`,
    `create type ${schema}.mood as enum ('sad', 'so so', 'happy')`,
    `create table ${schema}.side (id int generated always as identity primary key, note text)`,
    `create function ${schema}.writes() returns void language sql as $body$ insert into ${schema}.side (note) values ('called') $body$`,
    `create procedure ${schema}.steps() language plpgsql as $body$ begin
      insert into ${schema}.side (note) values ('one'); commit; insert into ${schema}.side (note) values ('two'); end $body$`,
    ...scenario.tables.flatMap((table, i) =>
      createTable({ table, name: `t${i}`, first: scenario.tables[0], place })
    ),
  ];
}

/** The options that a scenario's tables are tracked with, by name. */
export function trackOptions(scenario: Scenario): Map<string, { ignore: readonly string[] }> {
  return new Map(
    scenario.tables.flatMap(({ ignores, columns: [first] }, i) =>
      ignores && first ? [[`t${i}`, { ignore: [first.name] }] as const] : []
    ),
  );
}

function createTable(
  { table, name, first, place }: {
    table: TableSpec;
    name: string;
    first: TableSpec | undefined;
    place: Place;
  },
): string[] {
  const { version } = place;
  const at = `${schema}.${name}`;
  const types: string[] = [];
  const column = (spec: ColumnSpec): string => {
    const { type, before } = columnType(spec, place);
    types.push(...before);
    if (spec.generated === "no") return `${quote(spec.name)} ${type}`;
    const isPlain = spec.wrap === "none" && spec.type !== "mood" && !COLUMN_TYPES[spec.type]?.needs;
    const how = spec.generated === "virtual" && version >= 18 && isPlain ? "virtual" : "stored";
    const value = spec.type === "int4" && table.key === "int4" && spec.wrap === "none"
      ? "id * 2"
      : `(${place.values.get(catalogName(spec, place))?.[0]})::${type}`;
    return `${quote(spec.name)} ${type} generated always as (${value}) ${how}`;
  };
  const columns = table.columns.map(column);
  const keyType = COLUMN_TYPES[table.key]?.sql ?? "int";
  const identity = table.identity !== "no" && table.key === "int4"
    ? ` generated ${table.identity === "always" ? "always" : "by default"} as identity`
    : "";
  const others = columns.join(", ");
  const statements = ((): string[] => {
    switch (table.kind) {
      case "plain":
        return [`create table ${at} (id ${keyType} primary key${identity}, ${others})`];
      case "unlogged":
        return [`create unlogged table ${at} (id int primary key, ${others})`];
      case "composite-key":
        return [`create table ${at} (part int default 1, ${others}, id ${keyType}, primary key (id, part))`];
      case "no-key":
        return [`create table ${at} (id int, ${others})`];
      case "hash-partitioned":
        return [
          `create table ${at} (id int primary key, ${others}) partition by hash (id)`,
          ...[0, 1].map((n) =>
            `create table ${at}_h${n} partition of ${at} for values with (modulus 2, remainder ${n})`
          ),
        ];
      case "list-partitioned":
        return [
          `create table ${at} (id int, part int default 1, ${others}, primary key (id, part)) partition by list (part)`,
          `create table ${at}_p1 partition of ${at} for values in (1)`,
          // Its columns in another order, with the hole of a dropped one.
          `create table ${at}_p2 (gone int, ${
            [...columns].reverse().join(", ")
          }, part int not null, id int not null)`,
          `alter table ${at}_p2 drop column gone`,
          `alter table ${at} attach partition ${at}_p2 for values in (2)`,
          `create table ${at}_rest partition of ${at} default`,
        ];
      case "sub-partitioned":
        return [
          `create table ${at} (id int, part int default 1, ${others}, primary key (id, part)) partition by list (part)`,
          `create table ${at}_p1 partition of ${at} for values in (1) partition by hash (id)`,
          `create table ${at}_p1a partition of ${at}_p1 for values with (modulus 2, remainder 0)`,
          `create table ${at}_p1b partition of ${at}_p1 for values with (modulus 2, remainder 1)`,
          `create table ${at}_rest partition of ${at} default`,
        ];
      case "inherited":
        return [
          `create table ${at} (id int primary key, ${others})`,
          `create table ${at}_heir (extra text) inherits (${at})`,
          `alter table ${at}_heir add primary key (id)`,
        ];
      case "child": {
        const canRefer = first && name !== "t0" &&
          ["plain", "hash-partitioned", "inherited"].includes(first.kind);
        const referred = canRefer && first.kind === "plain" ? COLUMN_TYPES[first.key] : COLUMN_TYPES.int4;
        const type = referred?.sql ?? "int";
        const action = table.action.startsWith("no action")
          ? table.action
          : `on delete ${table.action} on update ${
            table.action === "set default" ? "cascade" : table.action
          }`;
        const reference = canRefer
          ? `default (${referred?.values[0]}) references ${schema}.t0 ${action}`
          : `references ${at} on delete cascade on update cascade`;
        return [
          `create table ${at} (id int primary key, ref ${canRefer ? type : "int"} ${reference}, ${others})`,
        ];
      }
    }
  })();
  return [...types, ...statements, ...trigger({ table, at, place })];
}

function trigger({ table, at, place }: { table: TableSpec; at: string; place: Place }): string[] {
  const spec = table.columns.find((column) => column.generated === "no");
  const fn = `${at}_does`;
  const of = `on ${at} for each row`;
  const body = (text: string): string =>
    `create function ${fn}() returns trigger language plpgsql as $body$ begin ${text} end $body$`;
  const side = `insert into ${schema}.side (note) values (tg_op);`;
  const back = "return case tg_op when 'DELETE' then old else new end;";
  const column = spec && quote(spec.name);
  const value = spec &&
    `(${place.values.get(catalogName(spec, place))?.at(-1)})::${columnType(spec, place).type}`;
  switch (table.trigger) {
    case "none":
      return [];
    case "rewrite-new":
      if (!column) return [];
      return [
        body(`new.${column} := ${value}; return new;`),
        `create trigger does before insert or update ${of} execute function ${fn}()`,
      ];
    case "same-row":
      if (!column) return [];
      return [
        body(`update ${at} set ${column} = ${value} where id = new.id; return null;`),
        `create trigger does after insert or update ${of} when (pg_trigger_depth() = 0) execute function ${fn}()`,
      ];
    case "other-table":
      return [
        body(`${side} return null;`),
        `create trigger does after insert or update or delete ${of} execute function ${fn}()`,
      ];
    case "before-other":
      return [
        body(`${side} ${back}`),
        `create trigger does before insert or update or delete ${of} execute function ${fn}()`,
      ];
    case "set-context":
      return [
        body(`perform set_config('bemi.context', '{"by": "trigger"}', true); ${back}`),
        `create trigger does before insert or update or delete ${of} execute function ${fn}()`,
      ];
    case "veto":
      return [
        body(
          `if case tg_op when 'DELETE' then old.id::text else new.id::text end = '2' then return null; end if; ${back}`,
        ),
        `create trigger does before insert or update or delete ${of} execute function ${fn}()`,
      ];
    case "deferred":
      return [
        body(`${side} return null;`),
        `create constraint trigger does after insert or update on ${at} deferrable initially deferred for each row execute function ${fn}()`,
      ];
    case "rule-also":
      return [
        `create rule does as on update to ${at} do also insert into ${schema}.side (note) values ('rule')`,
      ];
    case "rule-instead":
      if (!column) return [];
      return [
        `create rule does as on delete to ${at} do instead update ${at} set ${column} = ${value} where id = old.id`,
      ];
  }
}

/** The name that the catalog has for a column's type. Wrapped types are one for each type, not for each column. */
function catalogName({ type, wrap }: ColumnSpec, place: Place): string {
  const name = {
    none: type,
    array: `${type}[]`,
    nested: `${type}[]`,
    domain: `d_${type}`,
    domains: `d_${type}[]`,
    composite: `c_${type}`,
    composites: `c_${type}[]`,
  }[wrap];
  if (!place.values.has(name)) throw new Error(`No values of ${name}`);
  return name;
}

function columnType({ type, wrap }: ColumnSpec, place: Place): { type: string; before: readonly string[] } {
  const { values } = place;
  const known = COLUMN_TYPES[type];
  if (!known) throw new Error(`No type ${type}`);
  const sql = known.sql;
  switch (wrap) {
    case "none":
      return { type: sql, before: [] };
    case "array":
    case "nested":
      return { type: `${sql}[]`, before: [] };
    case "domain":
    case "domains": {
      const name = `d_${type}`;
      const isNew = !values.has(name);
      values.set(name, known.values);
      values.set(`${name}[]`, arraysOf(known.values, `${schema}.${name}`));
      return {
        type: `${schema}.${name}${wrap === "domains" ? "[]" : ""}`,
        before: isNew ? [`create domain ${schema}.${name} as ${sql}`] : [],
      };
    }
    case "composite":
    case "composites": {
      const name = `c_${type}`;
      const isNew = !values.has(name);
      const rows = known.values.map((value, i) =>
        i % 3 === 2
          ? `row(${value}, null, null)`
          : `row(${value}, 'b,"(\\c', array[${value}, null]::${sql}[])`
      );
      values.set(name, [...rows, "row(null, null, null)", "row(null, '', '{}')"]);
      values.set(`${name}[]`, arraysOf(rows, `${schema}.${name}`));
      return {
        type: `${schema}.${name}${wrap === "composites" ? "[]" : ""}`,
        before: isNew ? [`create type ${schema}.${name} as (a ${sql}, "b c" text, d ${sql}[])`] : [],
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
    `array[${one}]`,
    "array[null]",
  ];
}

export function quote(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
