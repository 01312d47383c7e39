import type { Database } from "../database/port.ts";
import { BemiError } from "../errors.ts";
import { inSchema } from "../install/schema.ts";
import { mostSimilar } from "../similar.ts";

/**
 * For tables of which no change was found: silence would mean that they never changed, so each name has to be one that
 * the log knows, or that is or was tracked.
 *
 * @throws {BemiError} `table_missing`
 */
export async function requireKnownTables(
  db: Database,
  schema: string,
  tables: string | readonly string[],
): Promise<void> {
  for (const table of typeof tables === "string" ? [tables] : tables) await requireKnown(db, schema, table);
}

async function requireKnown(db: Database, schema: string, table: string): Promise<void> {
  const [found] = await db.query<{ is_logged: boolean; can_ask: boolean }>(inSchema(schema, LOGGED), [table]);
  // Who may read the log may not be told what else was tracked.
  if (!found || found.is_logged || !found.can_ask) return;
  const names = await db.query<{ schema: string; name: string; is_it: boolean }>(inSchema(schema, NAMES), [
    table,
  ]);
  if (names.some(({ is_it }) => is_it)) return;
  const meant = mostSimilar(
    table,
    names.map((of) => table.includes(".") ? `${of.schema}.${of.name}` : of.name),
  );
  throw new BemiError("table_missing", `The log knows no table ${table}`, {
    hint: meant === undefined
      ? "Names are as the log has them, without quotes: bemi status lists what is tracked."
      : `Did you mean ${meant}?`,
  });
}

const LOGGED = `select pg_catalog.has_table_privilege('"bemi".table_names', 'select') as can_ask,
    exists (select from (
      select null as schema, $1::text as name
      union all
      select left($1::text, dot - 1), substr($1::text, dot + 1) from generate_series(1, length($1::text)) as dot
        where substr($1::text, dot, 1) = '.'
    ) as asked cross join lateral (
      select from "bemi".changes c where c."table" = asked.name and c.schema = coalesce(asked.schema, c.schema) limit 1
    ) as logged) as is_logged`;

const NAMES = `select distinct schema, name, $1::text in (name, schema || '.' || name, quote_ident(name),
    quote_ident(schema) || '.' || quote_ident(name)) as is_it from "bemi".table_names`;
