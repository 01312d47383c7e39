import { connect } from "../database/connect.ts";
import type { Database, DatabaseLike } from "../database/port.ts";
import { BemiError } from "../errors.ts";
import { DEFAULT_SCHEMA } from "../identifiers.ts";
import { inSchema } from "../install/schema.ts";
import type { Change } from "./change.ts";
import { CURSOR_SQL } from "./cursor.ts";
import {
  type Bind,
  binder,
  type ChangesFilter,
  filterConditions,
  type OrderBy,
  type Page,
  pageConditions,
} from "./filter.ts";
import { reading } from "./explained.ts";
import { requireKnownTables } from "./known-table.ts";
import { type Numbers, parseJson } from "./numbers.ts";

/** Options of every read of the log. */
export interface ReadOptions {
  /**
   * The schema of the installation.
   * @default "bemi"
   */
  readonly schema?: string | undefined;
  /**
   * `text` gives every number within `before`, `after` and `context` as its exact decimal text.
   * @default "number"
   */
  readonly numbers?: Numbers | undefined;
}

/** What {@linkcode changes} takes: which changes, which page of them, and how. */
export interface ChangesOptions extends ChangesFilter, ReadOptions {
  /** Which page of them. */
  readonly page?: Page | undefined;
  /** The latest so many: short for `page: { limit }`. */
  readonly limit?: number | undefined;
}

/**
 * Reads the log, oldest first.
 *
 * @typeParam Row the rows that changed, as JSON has them
 * @throws {BemiError} `schema_missing`, `usage`; `table_missing` where nothing is found of a table that the log does not know
 * @example Page by page
 * ```ts
 * import { PGlite } from "@electric-sql/pglite";
 * import { changes } from "@bemi/core/history";
 *
 * const db = await PGlite.create();
 * const first = await changes(db, { table: "todos", page: { after: "", limit: 100 } });
 * const second = await changes(db, { table: "todos", page: { after: first.at(-1)?.cursor, limit: 100 } });
 * ```
 */
export async function changes<Row extends object = Record<string, unknown>>(
  db: DatabaseLike,
  options: ChangesOptions = {},
): Promise<Change<Row>[]> {
  return (await changesJson(db, options)).map((json) => parseJson(json, options.numbers) as Change<Row>);
}

/**
 * As {@linkcode changes}, but each change is the JSON text that the server made: its numbers are exact.
 *
 * @throws {BemiError} as {@linkcode changes}
 * @example
 * ```ts
 * import postgres from "postgres";
 * import { changesJson } from "@bemi/core/history";
 *
 * const lines = await changesJson(postgres(), { context: { request_id: "01JC" } });
 * console.log(lines.join("\n"));
 * ```
 */
export async function changesJson(db: DatabaseLike, options: ChangesOptions = {}): Promise<string[]> {
  const { schema = DEFAULT_SCHEMA } = options;
  const database = connect(db);
  const parameters: string[] = [];
  const bind = binder(parameters);
  const conditions = filterConditions(options, bind);
  const page = { limit: options.limit, ...options.page };
  const found = await readJson(database, {
    schema,
    from: '"bemi".changes',
    conditions,
    page,
    bind,
    parameters,
  });
  if (found.length === 0 && options.table !== undefined) {
    await requireKnownTables(database, schema, options.table);
  }
  return found;
}

/** What to read, as parts of a statement. */
export interface ReadPlan {
  readonly schema: string;
  /** A relation with the log's columns, under the alias that it brings. */
  readonly from: string;
  /**
   * What is first in their order: a source, or of one row's the epoch that `from` has besides, for LSNs go on where the
   * capture changes.
   * @default "source_id"
   */
  readonly order?: OrderBy;
  readonly conditions: readonly string[];
  readonly page: Page;
  readonly bind: Bind;
  readonly parameters: string[];
}

/** Reads changes as JSON text, oldest first. */
export async function readJson(database: Database, plan: ReadPlan): Promise<string[]> {
  const { text, parameters } = readStatement(plan);
  // One with a long list, of keys perhaps, is hardly ever run again.
  const isKept = parameters.length <= 10;
  const rows = await reading(
    database,
    plan.schema,
    () => database.query<{ json: string }>(text, parameters, { isKept }),
  );
  return rows.map((row) => row.json);
}

/** The statement that {@linkcode readJson} runs. */
export function readStatement(plan: ReadPlan): { text: string; parameters: string[] } {
  const { schema, from, order = "source_id", conditions, page, bind, parameters } = plan;
  const { limit, after } = page;
  if (limit !== undefined && !(Number.isSafeInteger(limit) && limit > 0)) {
    throw new BemiError("usage", `The limit is ${limit}`, { hint: "Pass a whole number from 1." });
  }
  const all = [...conditions, ...pageConditions(page, bind, order)];
  // Going forwards the first ones count, else the last.
  const direction = after === undefined && limit !== undefined ? "desc" : "asc";
  const text = inSchema(
    schema,
    `select ${CHANGE_JSON} as json from (
      select * from ${from} ${all.length > 0 ? `where ${all.join(" and ")}` : ""}
      order by ${order} ${direction}, commit_lsn ${direction}, transaction_index ${direction}
      ${limit === undefined ? "" : `limit ${bind(String(limit), "bigint")}`}
    ) as page order by ${order}, commit_lsn, transaction_index`,
  );
  return { text, parameters };
}

// Put together as text, for which json_build_object takes more than twice as long.
const CHANGE_JSON =
  `pg_catalog.format('{"id":"%s","database":%s,"schema":%s,"table":%s,"primary_key":%s,"former_primary_key":%s,"operation":%s,'
      '"before":%s,"after":%s,"context":%s,"committed_at":"%s","transaction_id":"%s","position":"%s","cursor":"%s"}',
      id, to_json(database), to_json(schema), to_json("table"), coalesce(to_json(primary_key), 'null'),
      coalesce(to_json(former_primary_key), 'null'), to_json(operation), before, after, context,
      to_char(committed_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), transaction_id, "position", ${CURSOR_SQL})`;
