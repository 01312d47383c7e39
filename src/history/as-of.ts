import { connect } from "../database/connect.ts";
import type { Database, DatabaseLike } from "../database/port.ts";
import { DEFAULT_SCHEMA } from "../identifiers.ts";
import { inSchema } from "../install/schema.ts";
import { resolve } from "../install/track.ts";
import { requireDefined } from "./defined.ts";
import { inTodaysTypes, reading } from "./explained.ts";
import { binder } from "./filter.ts";
import { type Key, keyText } from "./key.ts";
import { type Moment, momentCall } from "./moment.ts";
import { queryPast } from "./past.ts";
import { waitForWorker } from "./worker-lag.ts";

/** Options of {@linkcode asOf}. */
export interface AsOfOptions {
  /**
   * The schema of the installation.
   * @default "bemi"
   */
  readonly schema?: string | undefined;
  /**
   * How long to wait, in milliseconds, for a worker that has not yet read what was committed until now, before
   * `log_behind` is thrown; `false` takes what is in the log.
   * @default 5000
   */
  readonly wait?: number | false | undefined;
}

/** Options of {@linkcode asOf} for one table. */
export interface TableAsOfOptions extends AsOfOptions {
  /** The primary key, or a JSON array's text of several columns: only that row, found by an index. Not `undefined`. */
  readonly key?: Key;
}

/** Options of {@linkcode asOf} for queries. */
export interface QueryAsOfOptions extends AsOfOptions {
  /**
   * The tables that the queries read, as in SQL. Each is copied for the transaction, so name them where there are many.
   * @default every tracked table
   */
  readonly tables?: readonly string[] | undefined;
  /**
   * Whether they may read tables as they are now too: by names with a schema, and through views and functions.
   * @default false
   */
  readonly readsPresent?: boolean | undefined;
}

/**
 * The rows of a table as they were at a moment, in today's columns, as the client gives them: `bemi.as_of` in SQL. A time
 * that is yet to come, by the server's clock, is an error.
 *
 * @throws {BemiError} `history_unknown`, whose hint says from when on it is known; `log_behind`, `table_missing`, `schema_missing`, `usage`
 * @example
 * ```ts
 * import { PGlite } from "@electric-sql/pglite";
 * import { asOf } from "@bemi/core/history";
 *
 * const db = await PGlite.create();
 * const [todo] = await asOf<{ id: number; task: string }>(db, "todos", "2026-11-03 09:00+00", { key: "42" });
 * ```
 */
export async function asOf<Row extends object = Record<string, unknown>>(
  db: DatabaseLike,
  table: string,
  moment: Moment,
  options?: TableAsOfOptions,
): Promise<Row[]>;
/**
 * Runs the application's own queries in the past: `fn` gets a client of the same kind, in one read-only transaction in
 * which every tracked table, by its name without a schema, is as it was. Names with a schema, and the application's
 * views and functions, still mean the present, which is refused unless `readsPresent` says otherwise.
 *
 * @throws {BemiError} as above; `usage` where the present was read
 * @example
 * ```ts
 * import postgres from "postgres";
 * import { asOf } from "@bemi/core/history";
 *
 * const open = await asOf(postgres(), new Date("2026-11-03"), (past) => past`SELECT * FROM todos WHERE NOT is_completed`);
 * ```
 */
export async function asOf<Client extends DatabaseLike, R>(
  db: Client,
  moment: Moment,
  fn: (past: Client) => PromiseLike<R>,
  options?: QueryAsOfOptions,
): Promise<R>;
export async function asOf(
  db: DatabaseLike,
  tableOrMoment: string | Moment,
  momentOrFn: Moment | ((past: DatabaseLike) => PromiseLike<unknown>),
  options: TableAsOfOptions & QueryAsOfOptions = {},
): Promise<unknown> {
  requireDefined(options, ["key"], "The option");
  const { schema = DEFAULT_SCHEMA, wait = 5000, tables, readsPresent = false } = options;
  const database = connect(db);
  const moment = typeof momentOrFn === "function" ? tableOrMoment : momentOrFn;
  return await reading(database, schema, async () => {
    await waitForWorker(database, { schema, moment, wait });
    if (typeof momentOrFn === "function") {
      return await queryPast(db, { schema, moment, fn: momentOrFn, tables, readsPresent });
    }
    const { from, parameters } = await tableAsOf(database, tableOrMoment as string, momentOrFn, options);
    // Not kept: a prepared statement goes on giving the columns that there were.
    return await inTodaysTypes(String(tableOrMoment), () => database.query(`select * ${from}`, parameters));
  });
}

/**
 * As {@linkcode asOf} for one table, but each row is the JSON text that the server made: its numbers are exact.
 *
 * @throws {BemiError} as {@linkcode asOf}
 * @example
 * ```ts
 * import postgres from "postgres";
 * import { asOfJson } from "@bemi/core/history";
 *
 * const [balance] = await asOfJson(postgres(), "accounts", "2026-11-03 09:00+00", { key: "42" });
 * ```
 */
export async function asOfJson(
  db: DatabaseLike,
  table: string,
  moment: Moment,
  options: TableAsOfOptions = {},
): Promise<string[]> {
  requireDefined(options, ["key"], "The option");
  const { schema = DEFAULT_SCHEMA, wait = 5000 } = options;
  const database = connect(db);
  return await reading(database, schema, async () => {
    await waitForWorker(database, { schema, moment, wait });
    const { from, parameters } = await tableAsOf(database, table, moment, options);
    const rows = await inTodaysTypes(table, () =>
      database.query<{ json: string }>(
        `select pg_catalog.to_json(bemi_row.*)::text as json ${from} as bemi_row`,
        parameters,
      ));
    return rows.map((row) => row.json);
  });
}

async function tableAsOf(
  database: Database,
  table: string,
  moment: Moment,
  { schema = DEFAULT_SCHEMA, key }: TableAsOfOptions,
): Promise<{ from: string; parameters: string[] }> {
  requireDefined({ table }, ["table"], "The argument");
  const parameters: string[] = [];
  const bind = binder(parameters);
  const name = await resolve(database, table);
  const call = momentCall(moment, bind);
  const last = key === undefined ? "" : `, a_key => ${bind(keyText(key), "text")}`;
  // The table may be called like the schema's token.
  const from = `${inSchema(schema, `from "bemi".${call.name}(null::`)}${name}, ${call.arguments}${last})`;
  return { from, parameters };
}
