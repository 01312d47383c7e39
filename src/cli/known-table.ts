import type postgres from "postgres";
import { BemiError } from "../errors.ts";
import { inSchema } from "../install/schema.ts";
import { mostSimilar } from "../similar.ts";

/**
 * For a table of which no change was found: silence would mean that it never changed, so the name has to be one that the
 * log knows, or that is tracked.
 *
 * @throws {BemiError} `table_missing`
 */
export async function requireKnownTable(sql: postgres.Sql, schema: string, table: string): Promise<void> {
  const [name = "", namespace] = table.split(".").reverse();
  const [logged] = await sql.unsafe(
    inSchema(
      schema,
      'select from "bemi".changes where "table" = $1 and schema = coalesce($2::text, schema) limit 1',
    ),
    [name, namespace ?? null],
  );
  if (logged) return;
  // Who may read the log may not be told what is tracked.
  const tracked = await sql.unsafe<{ schema: string; name: string }[]>(
    inSchema(schema, 'select schema, name from "bemi".tracked_tables where relation = root'),
  ).catch(() => []);
  if (tracked.some((known) => known.name === name && (namespace ?? known.schema) === known.schema)) return;
  const names = tracked.map((known) =>
    namespace === undefined ? known.name : `${known.schema}.${known.name}`
  );
  const meant = mostSimilar(table, names);
  throw new BemiError("table_missing", `The log knows no table ${table}`, {
    hint: meant === undefined
      ? "Names are as the log has them, without quotes: bemi status lists what is tracked."
      : `Did you mean ${meant}?`,
  });
}
