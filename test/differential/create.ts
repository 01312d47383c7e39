import { COLUMN_TYPES } from "./column-types.ts";
import { catalogName, columnType, type Place, quote, SCHEMA as schema } from "./place.ts";
import type { ColumnSpec, Scenario, TableSpec } from "./scenario.ts";

/** The statements that make a scenario's tables. The columns of a key are called `id` and `part`. */
export function createStatements(scenario: Scenario, place: Place): string[] {
  return [
    `create schema ${schema}`,
    `create type ${schema}.mood as enum ('sad', 'so so', 'happy')`,
    ...scenario.tables.some(({ columns }) =>
        columns.some(({ type }) => type.startsWith("float") && type.endsWith("range"))
      )
      ? [
        `create type ${schema}.floatrange as range (subtype = float8, multirange_type_name = ${schema}.floatmultirange)`,
      ]
      : [],
    `create table ${schema}.side (id int generated always as identity primary key, note text)`,
    `create function ${schema}.writes() returns void language sql as $body$ insert into ${schema}.side (note) values ('called') $body$`,
    `create function ${schema}.within() returns void language plpgsql set "bemi.context" = '{"in": "function"}' as $body$ begin
      insert into ${schema}.side (note) values ('within'); perform ${schema}.writes(); end $body$`,
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
    const { sql = "", needs } = COLUMN_TYPES[spec.type] ?? {};
    const isPlain = spec.wrap === "none" && !sql.startsWith("@") && !needs;
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
