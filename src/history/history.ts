import { connect } from "../database/connect.ts";
import type { Database, DatabaseLike } from "../database/port.ts";
import { DEFAULT_SCHEMA } from "../identifiers.ts";
import { requireInstalled } from "../install/schema.ts";
import type { Change } from "./change.ts";
import { readJson, type ReadOptions } from "./changes.ts";
import { binder, type ChangesFilter, filterConditions, type Page } from "./filter.ts";
import { parseJson } from "./numbers.ts";

/** What {@linkcode history} takes besides the row. */
export interface HistoryOptions extends Omit<ChangesFilter, "table" | "key">, ReadOptions {
  /** Which page of them. */
  readonly page?: Page | undefined;
}

/**
 * Every change of one row, oldest first: under the keys that it had before and has had since, and under every name of
 * its table, dropped tables included.
 *
 * @param table as in SQL: `todos`, `app.todos`; by its present name, or the last one that it had
 * @param key the primary key's text; a JSON array of several columns
 * @throws {BemiError} `schema_missing`, `usage`
 * @example
 * ```ts
 * import { PGlite } from "@electric-sql/pglite";
 * import { diff, history } from "@bemi/core/history";
 *
 * for (const change of await history<{ task: string }>(await PGlite.create(), "todos", "42")) {
 *   console.log(change.committed_at, change.context.user_id, diff(change.before, change.after).task);
 * }
 * ```
 */
export async function history<Row extends object = Record<string, unknown>>(
  db: DatabaseLike,
  table: string,
  key: string,
  options: HistoryOptions = {},
): Promise<Change<Row>[]> {
  return (await historyJson(db, table, key, options)).map((json) =>
    parseJson(json, options.numbers) as Change<Row>
  );
}

/** As {@linkcode history}, but each change is the JSON text that the server made: its numbers are exact. */
export async function historyJson(
  db: DatabaseLike,
  table: string,
  key: string,
  options: HistoryOptions = {},
): Promise<string[]> {
  const { schema = DEFAULT_SCHEMA, page = {} } = options;
  const database = connect(db);
  await requireInstalled(database, schema);
  const parameters: string[] = [];
  const bind = binder(parameters);
  const from = `"bemi".history(${bind(await presentName(database, table), "text")}, ${
    bind(key, "text")
  }) as changes`;
  return await readJson(database, {
    schema,
    from,
    conditions: filterConditions(options, bind),
    page,
    bind,
    parameters,
  });
}

/** A table's quoted name with its schema; where there is none (any more), the name as it was given. */
async function presentName(db: Database, table: string): Promise<string> {
  // One statement fails for what is no identifier, such as a dropped table's `Odd "name`.
  if (!/^[\w$."]+$/.test(table)) return table;
  const [row] = await db.query<{ name: string | null }>(
    `select pg_catalog.format('%I.%I', n.nspname, c.relname) as name
    from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = to_regclass($1::text)`,
    [table],
  );
  return row?.name ?? table;
}
