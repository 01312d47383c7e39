import { alteration } from "./alterations.ts";
import { type Place, quote } from "./place.ts";
import type { Live, LiveColumn } from "./live.ts";
import { ALTERATIONS, type Op, type OpKind } from "./scenario.ts";

/** One string that a client sends. */
export interface Statement {
  readonly sql: string;
  readonly protocol: "simple" | "prepared" | "copy";
  /** What COPY FROM STDIN is given. */
  readonly data?: string;
}

/** What an operation is in SQL, with the tables as they are now: none where there is nothing to do it to. */
export function render(op: Op, live: Live, place: Place): Statement[] {
  const make = (ALTERATIONS as readonly OpKind[]).includes(op.kind) ? alteration : write;
  return make(op, live, place).map((made) => {
    const statement = typeof made === "string" ? { sql: made, protocol: "simple" as const } : made;
    return { ...statement, sql: statement.sql.replaceAll("@.", `${live.schema}.`) };
  });
}

export function choose<T>(list: readonly T[], pick: number): T | undefined {
  return list[pick % Math.max(1, list.length)];
}

/** A value for a column, as an expression of its type. */
export function valueFor(column: LiveColumn, pick: number, place: Place): string {
  // Few keys, so that statements meet.
  if (column.name === "part") return String(1 + pick % 3);
  if (["id", "ref"].includes(column.name) && column.type === "int4") return String(1 + pick % 6);
  const known = place.values.get(column.type) ?? [];
  const values = column.isNotNull ? known : [...known, "null"];
  return `(${choose(values, pick) ?? "null"})::${column.cast}`;
}

function write(op: Op, live: Live, place: Place): (string | Statement)[] {
  const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = op.picks;
  const tables = live.tables.filter((table) => table.name !== "side");
  const roots = tables.filter((table) => !table.isPartition);
  const partitioned = roots.filter((table) => table.kind === "p");
  const target = op.kind === "move" && partitioned.length > 0
    ? choose(partitioned, a)
    : choose([...roots, ...roots, ...roots, ...tables], a);
  if (!target) return [];
  const { at } = target;
  const insertable = target.columns.filter((column) => !column.generated && column.identity !== "a");
  const names = insertable.map((column) => quote(column.name)).join(", ");
  const tuple = (n: number): string =>
    `(${insertable.map((column, i) => valueFor(column, n + i * 7, place)).join(", ")})`;
  const settable = target.columns.filter((column) =>
    !column.generated && !column.identity && !target.keys.includes(column.name) && column.name !== "part"
  );
  const set = (n: number): string => {
    const columns = [choose(settable, n), choose(settable, n + 1 + f)].filter((one) => one !== undefined);
    const unique = columns.filter((one, i) => columns.indexOf(one) === i);
    return unique.map((one, i) => `${quote(one.name)} = ${valueFor(one, n + d + i, place)}`).join(", ") ||
      "id = id";
  };
  const key = target.columns.find((column) => column.name === "id");
  const where = (n: number): string => {
    if (!key || n % 4 === 0) return "true";
    return `id = ${valueFor(key, n, place)}`;
  };
  const conflict = target.keys.map(quote).join(", ");
  const insert = `insert into ${at} (${names}) values ${tuple(b)}`;
  const only = f % 5 === 0 && target.isHeir === false && target.kind === "r" ? "only " : "";
  switch (op.kind) {
    case "insert":
      return [d % 4 === 0 ? `${insert} on conflict do nothing returning *` : insert];
    case "insert-many":
      return [
        `insert into ${at} (${names}) values ${
          [b, b + 1, b + 2].map(tuple).join(", ")
        } on conflict do nothing`,
      ];
    case "insert-select":
      return [`insert into ${at} (id) select ${10 + b % 3} + g from generate_series(1, ${1 + c % 5}) as g`];
    case "copy":
      return [{
        sql: `copy ${at} (id) from stdin`,
        protocol: "copy",
        data: `${20 + b % 5}\n${30 + c % 5}\n`,
      }];
    case "update":
      return [`update ${only}${at} set ${set(b)} where ${where(1 + c * 4)}`];
    case "update-all":
      return [`update ${at} set ${set(b)}`];
    case "update-key":
      if (key?.type === "int4") {
        return [`update ${at} set id = id ${d % 2 ? "+ 1" : "+ 100"} where ${where(c)}`];
      }
      return key ? [`update ${at} set id = ${valueFor(key, b, place)} where ${where(c)}`] : [];
    case "update-nothing":
      return [
        `update ${at} set ${choose(settable, b) ? "" : "id = id, "}${
          choose(settable, b)
            ? `${quote(choose(settable, b)?.name ?? "")} = ${quote(choose(settable, b)?.name ?? "")}`
            : "id = id"
        }`.replace("id = id, id = id", "id = id"),
      ];
    case "update-from": {
      const other = choose(live.tables, e);
      return other
        ? [
          `update ${at} as target set ${
            set(b)
          } from ${other.at} as other where target.id::text = other.id::text`,
        ]
        : [];
    }
    case "move": {
      if (!target.columns.some((column) => column.name === "part")) {
        return [`update ${at} set id = id + ${1 + b % 100} where ${where(c)}`];
      }
      return [
        `update ${at} set part = 1 + (part + ${b % 2}) % 3${d % 3 === 0 ? ", id = id + 10" : ""} where ${
          c % 2 ? "true" : where(c)
        }`,
      ];
    }
    case "delete":
      return [`delete from ${only}${at} where ${where(1 + c * 4)}`];
    case "delete-using": {
      const other = choose(live.tables, e);
      if (!other) return [];
      return [
        `delete from ${at} as target using ${other.at} as other where target.id::text = other.id::text`,
      ];
    }
    case "delete-all":
      return [`delete from ${at}`];
    case "upsert":
      return conflict ? [`${insert} on conflict (${conflict}) do update set ${set(c)}`] : [insert];
    case "upsert-nothing":
      return [`${insert}, ${tuple(b + 1)} on conflict do nothing`];
    case "merge":
      if (place.version < 15 || !key) return [insert];
      return [
        `merge into ${at} as t using (select g as g from generate_series(1, 6) as g) as s on t.id::text = s.g::text` +
        ` when matched and s.g % 3 = ${b % 3} then ${d % 3 === 0 ? "do nothing" : `update set ${set(c)}`}` +
        ` when matched and s.g % 3 = ${c % 3} then ${e % 2 ? "delete" : `update set ${set(e)}`}` +
        ` when not matched and s.g < 3 then insert (${names}) values ${tuple(b)}${
          place.version >= 17 && f % 2
            ? ` when not matched by source and t.id::text like '%1' then ${
              e % 2 ? "delete" : `update set ${set(d)}`
            } returning merge_action(), t.*`
            : ""
        }`,
      ];
    case "writable-cte": {
      const other = choose(live.tables, e);
      return [
        `with gone as (delete from ${at} where ${where(c)} returning id)` +
        `, noted as (insert into @.side (note) select 'gone' from gone returning id)` +
        ` ${other && other.at !== at ? `update ${other.at} set id = id where true` : insert}`,
      ];
    }
    case "truncate":
      return [
        `truncate ${f % 3 === 0 ? "only " : ""}${at} ${d % 2 ? "restart identity" : ""} cascade`.replace(
          "only ",
          target.kind === "p" ? "" : "only ",
        ),
      ];
    case "block":
      return [
        `do $do$ begin ${insert} on conflict do nothing; update ${at} set ${
          set(c)
        }; delete from ${at} where ${where(1 + e * 4)}; end $do$`,
      ];
    case "block-exception":
      return [
        `do $do$ begin ${insert} on conflict do nothing; begin perform set_config('bemi.context', '{"in": "block"}', true);` +
        ` update ${at} set ${set(c)}; ${insert}; ${
          d % 2 ? "raise exception 'no'" : insert
        }; exception when others then` +
        ` insert into @.side (note) values ('caught'); end; update ${at} set ${set(c)} where ${
          where(e)
        }; end $do$`,
      ];
    case "call":
      return [
        choose([
          "select @.writes()",
          "call @.steps()",
          "select @.within()",
          "select count(*), @.writes() from generate_series(1, 2)",
        ], b) ?? "",
      ];
    case "set-context":
      return [`select set_config('bemi.context', '${choose(OBJECTS, b)}', true)`];
    case "clear-context":
      return ["select set_config('bemi.context', '', true)"];
    case "bad-context":
      return [
        `select set_config('bemi.context', '${
          choose(["{", "[1]", '"text"', "nul", '{"a": "\\u0000"}'], b)
        }', true)`,
      ];
    case "comment-context":
      return [
        `update ${at} set ${set(b)} where ${where(c)} /*Bemi {"by": "comment", "n": ${b}} Bemi*/${
          d % 2 ? ";" : ""
        }`,
      ];
    case "claims":
      return [
        `select set_config('request.jwt.claims', '{"sub": "${
          b % 3
        }"}', true), set_config('request.headers', '{"x-bemi-context": "{\\"page\\": ${c % 3}}"}', true)`,
      ];
    case "constraints-deferred":
      return ["set constraints all deferred"];
    case "replica-role":
      return [`set local session_replication_role = ${choose(["replica", "local", "origin"], b)}`];
    default:
      return [];
  }
}

const OBJECTS: readonly string[] = [
  '{"user_id": 1}',
  '{"user_id": 2, "db": {"user": "forged"}, "SQL": "own"}',
  '{ "a" : 1.10, "a": 12345678901234567890, "b": "\\u00e9 é \\\\ / " }',
  '{"nested": {"list": [1, null, {"deep": true}]}, "jwt": 1, "client": 2}',
  "{}",
  `{"user_id": 3, "text": "*/ -- ''quoted'' \\\\t"}`,
];
