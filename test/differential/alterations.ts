import { COLUMN_TYPES } from "./column-types.ts";
import { type Place, quote } from "./create.ts";
import type { Live } from "./live.ts";
import type { Op } from "./scenario.ts";
import { choose, valueFor } from "./statements.ts";

const SETTINGS: readonly string[] = [
  "set datestyle = 'SQL, DMY'",
  "set timezone = 'America/New_York'",
  "set intervalstyle = iso_8601",
  "set bytea_output = escape",
  "set quote_all_identifiers = on",
  "set extra_float_digits = 0",
  "set search_path = pg_catalog",
  "reset all",
];

/** DDL, and what else is done between the writes. */
export function alteration(op: Op, live: Live, place: Place): string[] {
  const [a = 0, b = 0, c = 0, d = 0] = op.picks;
  const table = choose(live.tables.filter((one) => !one.isPartition && one.name !== "side"), a);
  if (op.kind === "settings") return [choose(SETTINGS, b) ?? ""];
  if (!table) return [];
  const { at } = table;
  const alter = `alter table ${at}`;
  const others = table.columns.filter((column) =>
    !table.keys.includes(column.name) && column.name !== "id" && column.name !== "part"
  );
  const column = choose(others, b);
  const name = column && quote(column.name);
  const typeName = choose(Object.keys(COLUMN_TYPES), c) ?? "text";
  const type = COLUMN_TYPES[typeName];
  const value = `(${choose(type?.values ?? [], d)})::${type?.sql}`;
  switch (op.kind) {
    case "add-column":
      return [`${alter} add column n${b % 3} ${type?.sql}`];
    case "add-column-default":
      return [`${alter} add column n${b % 3} ${type?.sql} not null default ${value}`];
    case "add-generated":
      return [`${alter} add column g${b % 2} int generated always as (${c % 9}) stored`];
    case "drop-column":
      return name ? [`${alter} drop column ${name} cascade`] : [];
    case "readd-column":
      return name ? [`${alter} drop column ${name} cascade`, `${alter} add column ${name} ${type?.sql}`] : [];
    case "rename-column":
      return name ? [`${alter} rename column ${name} to r${c % 3}`] : [];
    case "rename-key":
      return [`${alter} rename column id to ident`];
    case "rename-table":
      return [`${alter} rename to ${table.name}r`];
    case "rename-schema":
      return [`alter schema ${live.schema} rename to ${live.schema}x`];
    case "change-type":
      if (!name) return [];
      return [
        choose([
          `${alter} alter column ${name} type text using ${name}::text`,
          `${alter} alter column ${name} type jsonb using to_jsonb(${name})`,
          `${alter} alter column ${name} type bigint using 7`,
          `${alter} alter column id type bigint`,
          `${alter} alter column id type text`,
        ], c) ?? "",
      ];
    case "set-default":
      return column ? [`${alter} alter column ${name} set default ${valueFor(column, c, place)}`] : [];
    case "drop-not-null":
      return name ? [`${alter} alter column ${name} ${c % 2 ? "set" : "drop"} not null`] : [];
    case "replica-identity":
      return [
        `${alter} replica identity ${
          choose(["default", "nothing", "full", `using index ${quote(table.keyName ?? "none")}`], b)
        }`,
      ];
    case "drop-key":
      return table.keyName ? [`${alter} drop constraint ${quote(table.keyName)} cascade`] : [];
    case "add-key":
      return [`${alter} add primary key (id)`];
    case "drop-table":
      return [`drop table ${at} cascade`];
    case "recreate-table":
      return [`drop table ${at} cascade`, `create table ${at} (id int primary key, again text, num numeric)`];
    case "attach-partition": {
      if (table.strategy !== "list") return [];
      return [
        `create table ${at}_n (like ${at} including defaults including generated)`,
        `insert into ${at}_n (id, part) values (${b % 6}, 7)`,
        `${alter} attach partition ${at}_n for values in (7)`,
      ];
    }
    case "detach-partition": {
      const partition = choose(
        live.tables.filter((one) => one.isPartition && one.name.startsWith(`${table.name}_`)),
        b,
      );
      return partition ? [`${alter} detach partition ${partition.at}`] : [];
    }
    case "create-trigger":
      return [
        "create or replace function @.late() returns trigger language plpgsql as $body$ begin insert into @.side (note) values ('late'); return null; end $body$",
        `create trigger late after insert or update ${
          b % 2 ? "on" : "or delete on"
        } ${at} for each row execute function @.late()`,
      ];
    case "drop-trigger":
      return [`drop trigger does on ${at}`];
    case "disable-triggers":
      return [`${alter} ${b % 2 ? "disable" : "enable"} trigger user`];
    case "create-index":
      return [`create index on ${at} (id)`];
    case "cluster":
      return table.keyName ? [`cluster ${at} using ${quote(table.keyName)}`] : [];
    case "enum-value":
      return [`alter type @.mood add value if not exists 'v${b % 3}' before 'happy'`];
    case "enum-rename":
      return ["alter type @.mood rename value 'sad' to 'blue'"];
    case "composite-attribute": {
      const composite = choose(live.composites, b);
      if (!composite) return [];
      return [
        choose([
          `alter type @.${quote(composite)} add attribute z int cascade`,
          `alter type @.${quote(composite)} rename attribute a to renamed cascade`,
          `alter type @.${quote(composite)} drop attribute "b c" cascade`,
        ], c) ?? "",
      ];
    }
    case "set-logged":
      // PostgreSQL refuses the opposite to a table in a publication (55000).
      return [`${alter} set logged`];
    case "create-temporary":
      return [
        "create temporary table mine (id int primary key, note text)",
        "insert into mine values (1, 'temporary')",
        "update mine set note = 'still'",
        "drop table mine",
      ];
    case "rewrite":
      return [`${alter} set (fillfactor = ${50 + b % 50})`];
    default:
      return [];
  }
}
