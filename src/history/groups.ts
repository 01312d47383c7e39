import { connect } from "../database/connect.ts";
import type { Database, DatabaseLike } from "../database/port.ts";
import { BemiError } from "../errors.ts";
import { DEFAULT_SCHEMA } from "../identifiers.ts";
import { inSchema } from "../install/schema.ts";
import type { Operation } from "./change.ts";
import { reading } from "./explained.ts";
import { requireKnownTables } from "./known-table.ts";
import { type Bind, binder, type ChangesFilter, filterConditions } from "./filter.ts";

/** Buckets of time. */
export const TIME_BUCKETS = ["minute", "hour", "day", "week", "month"] as const;

/** What to group changes by: a transaction, a table, an operation, a bucket of time, or a path within the context. */
export type GroupBy =
  | "transaction"
  | "table"
  | "operation"
  | (typeof TIME_BUCKETS)[number]
  | { readonly context: string | readonly string[] };

/** What {@linkcode groups} takes. */
export interface GroupsOptions extends ChangesFilter {
  /** What to group by. */
  readonly by: GroupBy;
  /** The first so many: buckets of time and transactions the latest, others the largest. */
  readonly limit?: number | undefined;
  /**
   * The time zone in which hours, days, weeks and months begin.
   * @default "UTC"
   */
  readonly timeZone?: string | undefined;
  /**
   * The schema of the installation.
   * @default "bemi"
   */
  readonly schema?: string | undefined;
}

/** Changes that have something in common. */
export interface Group {
  /** What they have in common, as text: `source/transaction`, a bucket's beginning, a value; null where there is none. */
  readonly key: string | null;
  /** How many changes. */
  readonly changes: number;
  /** How many of each operation. */
  readonly operations: { readonly [Name in Operation]?: number };
  /** The tables that they are of. */
  readonly tables: readonly string[];
  /** When the first was committed. */
  readonly first_committed_at: string;
  /** When the last was. */
  readonly last_committed_at: string;
}

/**
 * Counts changes by what they have in common: what happened in which transaction, who did how much, trends.
 *
 * @throws {BemiError} `schema_missing`, `usage`; `table_missing` as {@linkcode changes}
 * @example
 * ```ts
 * import { PGlite } from "@electric-sql/pglite";
 * import { groups } from "@bemi/core/history";
 *
 * const db = await PGlite.create();
 * await groups(db, { by: { context: "user_id" }, table: "todos", since: "2026-11-01" });
 * await groups(db, { by: "day", timeZone: "Europe/Vienna", operation: "DELETE" });
 * ```
 */
export async function groups(db: DatabaseLike, options: GroupsOptions): Promise<Group[]> {
  const { schema = DEFAULT_SCHEMA } = options;
  const database = connect(db);
  const found = await readGroups(database, schema, groupsStatement(options));
  if (found.length === 0 && options.table !== undefined) {
    await requireKnownTables(database, schema, options.table);
  }
  return found;
}

/** Runs what {@linkcode groupsStatement} made. */
export async function readGroups(
  database: Database,
  schema: string,
  { text, parameters }: ReturnType<typeof groupsStatement>,
): Promise<Group[]> {
  const rows = await reading(
    database,
    schema,
    () => database.query<{ json: string }>(inSchema(schema, text), parameters),
  );
  return rows.map((row) => JSON.parse(row.json) as Group);
}

/** The statement that {@linkcode groups} runs. */
export function groupsStatement(options: GroupsOptions, more: (bind: Bind) => readonly string[] = () => []): {
  text: string;
  parameters: string[];
} {
  const parameters: string[] = [];
  const bind = binder(parameters);
  const { key, order } = expression(options, bind);
  const conditions = [...filterConditions(options, bind), ...more(bind)];
  const text =
    `select pg_catalog.json_build_object('key', key, 'changes', sum(n), 'operations', json_object_agg(operation, n),
      'tables', (select json_agg(distinct t order by t) from jsonb_array_elements(jsonb_agg(tables)) as each (tables), jsonb_array_elements_text(each.tables) as t),
      'first_committed_at', ${isoTime("min(first)")}, 'last_committed_at', ${
      isoTime("max(last)")
    })::text as json
    from (
      select ${key} as key, operation, count(*) as n, jsonb_agg(distinct "table") as tables,
        min(committed_at) as first, max(committed_at) as last
      from "bemi".changes ${conditions.length > 0 ? `where ${conditions.join(" and ")}` : ""}
      group by 1, 2
    ) as counted
    group by key order by ${order}
    ${options.limit === undefined ? "" : `limit ${bind(String(options.limit), "bigint")}`}`;
  return { text, parameters };
}

function expression({ by, timeZone = "UTC" }: GroupsOptions, bind: Bind): { key: string; order: string } {
  const largest = "sum(n) desc, key";
  if (typeof by === "object") {
    const path = typeof by.context === "string" ? by.context.split(".") : by.context;
    return {
      key: `context #>> array(select jsonb_array_elements_text(${bind(JSON.stringify(path), "jsonb")}))`,
      order: largest,
    };
  }
  switch (by) {
    case "transaction":
      // In capture by triggers the commit's LSN is not known; from the WAL, an id may be given out again after a crash.
      return {
        key: `source_id || '/' || case when source_id in (select id from "bemi".sources where capture = 'wal')
          then commit_lsn::text else transaction_id::text end`,
        order: "max(last) desc, key desc",
      };
    case "table":
      return { key: `schema || '.' || "table"`, order: largest };
    case "operation":
      return { key: "operation", order: largest };
    default: {
      if (!TIME_BUCKETS.includes(by)) {
        throw new BemiError("usage", `Unknown group "${String(by)}"`, {
          hint: `Group by transaction, table, operation, ${TIME_BUCKETS.join(", ")}, or { context: path }.`,
        });
      }
      const bucket = `pg_catalog.date_trunc(${bind(by, "text")}, committed_at, ${bind(timeZone, "text")})`;
      return { key: isoTime(bucket, 0), order: "key desc" };
    }
  }
}

const isoTime = (time: string, digits = 6): string =>
  `to_char(${time} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS${digits > 0 ? ".US" : ""}"Z"')`;
