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
  const [found] = await db.query<{ is_logged: boolean; may_be: boolean; can_ask: boolean }>(
    inSchema(schema, LOGGED),
    [table],
  );
  // Who may read the log may not be told what else was tracked.
  if (!found || found.is_logged || !found.can_ask) return;
  const names = await db.query<{ schema: string; name: string; is_it: boolean }>(inSchema(schema, NAMES), [
    table,
  ]);
  if (names.some(({ is_it }) => is_it) || names.length === 0 && found.may_be) return;
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

// No index tells of which schemas there are tables of a name: so a few of its changes are looked at, and where all of them
// are another schema's, those of this one may come later. In the order of an index: the planner takes any name for a
// frequent one, and would look through all of the log.
const LOGGED = `select pg_catalog.has_table_privilege('"bemi".table_names', 'select') as can_ask,
    coalesce(bool_or(logged.is_it), false) as is_logged, count(logged) = 50 as may_be
  from (
    select null as schema, $1::text as name
    union all
    select left($1::text, dot - 1), substr($1::text, dot + 1) from generate_series(1, length($1::text)) as dot
      where substr($1::text, dot, 1) = '.'
  ) as asked left join lateral (
    select c.schema = coalesce(asked.schema, c.schema) as is_it from "bemi".changes c
    where c."table" = asked.name order by hashtextextended(c.primary_key, 0) limit 50
  ) as logged on true`;

const NAMES = `select distinct schema, name, $1::text in (name, schema || '.' || name, quote_ident(name),
    quote_ident(schema) || '.' || quote_ident(name)) as is_it from "bemi".table_names`;
