import { connect } from "../database/connect.ts";
import type { DatabaseLike } from "../database/port.ts";
import { DEFAULT_SCHEMA } from "../identifiers.ts";
import type { Change } from "./change.ts";
import { readJson, type ReadOptions } from "./changes.ts";
import { requireDefined } from "./defined.ts";
import { type Bind, binder, type ChangesFilter, filterConditions, type Page } from "./filter.ts";
import { type Key, keyText } from "./key.ts";
import { requireKnownTables } from "./known-table.ts";
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
 * @param key the primary key; a JSON array's text of several columns
 * @throws {BemiError} `schema_missing`, `usage`; `table_missing` where nothing is found of a table that the log does not know
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
  key: Key,
  options: HistoryOptions = {},
): Promise<Change<Row>[]> {
  return (await historyJson(db, table, key, options)).map((json) =>
    parseJson(json, options.numbers) as Change<Row>
  );
}

/**
 * As {@linkcode history}, but each change is the JSON text that the server made: its numbers are exact.
 *
 * @throws {BemiError} as {@linkcode history}
 * @example
 * ```ts
 * import postgres from "postgres";
 * import { historyJson } from "@bemi/core/history";
 *
 * for (const change of await historyJson(postgres(), "invoices", 42)) console.log(change);
 * ```
 */
export async function historyJson(
  db: DatabaseLike,
  table: string,
  key: Key,
  options: HistoryOptions = {},
): Promise<string[]> {
  requireDefined({ table, key }, ["table", "key"], "The argument");
  const { schema = DEFAULT_SCHEMA, page = {} } = options;
  const parameters: string[] = [];
  const bind = binder(parameters);
  const from = `(select h.*, e.epoch from "bemi".history(${presentName(table, bind)}, ${
    bind(keyText(key), "text")
  }) as h join "bemi".epochs e on e.source_id = h.source_id) as changes`;
  const database = connect(db);
  const found = await readJson(database, {
    schema,
    from,
    order: "epoch",
    conditions: filterConditions(options, bind),
    page,
    bind,
    parameters,
  });
  if (found.length > 0) return found;
  const named: string[] = [];
  const [present] = await database.query<{ name: string }>(
    `select ${presentName(table, binder(named))} as name`,
    named,
  );
  await requireKnownTables(database, schema, present?.name ?? table);
  return found;
}

const IDENTIFIER = String.raw`(?:[\w$]+|"(?:[^"]|"")+")`;
const NAME = new RegExp(String.raw`^${IDENTIFIER}(?:\.${IDENTIFIER})?$`);

/** A table's quoted name with its schema, as an expression; where there is none (any more), the name as it was given. */
function presentName(table: string, bind: Bind): string {
  const name = bind(table, "text");
  // The statement would fail for what is no name in SQL, such as a dropped table's `Odd "name` or `a.b.c`.
  if (!NAME.test(table)) return name;
  return `coalesce((select pg_catalog.format('%I.%I', n.nspname, c.relname)
    from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = to_regclass(${name})), ${name})`;
}
