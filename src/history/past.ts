import { inTransaction } from "../database/connect.ts";
import type { Database, DatabaseLike } from "../database/port.ts";
import { SQLSTATE, sqlstateOf } from "../database/sqlstate.ts";
import { BemiError } from "../errors.ts";
import { quoteIdentifier } from "../identifiers.ts";
import { inSchema } from "../install/schema.ts";
import { resolve } from "../install/track.ts";
import { inTodaysTypes } from "./explained.ts";
import { binder } from "./filter.ts";
import { type Moment, momentCall } from "./moment.ts";

/** Queries to be run in the past. */
export interface PastQueries<R> {
  readonly schema: string;
  readonly moment: Moment;
  readonly fn: (past: DatabaseLike) => PromiseLike<R>;
  readonly tables: readonly string[] | undefined;
  readonly readsPresent: boolean;
}

/**
 * Puts a temporary table in front of each tracked one, filled with its rows as they were and indexed like it, and then
 * makes the transaction read-only. A view over `as_of` would read the log again for each query, and give the planner
 * nothing to go by: 100,000 rows are copied once, and then found by their key.
 */
export async function queryPast<R>(
  db: DatabaseLike,
  { schema, moment, fn, tables, readsPresent }: PastQueries<R>,
): Promise<R> {
  return await inTransaction(db, async (client, port) => {
    await port.execute(
      "set transaction isolation level repeatable read; set local client_min_messages = error",
    );
    const shadowed = await tracked(port, schema, tables);
    for (const table of shadowed) await shadow(port, { schema, moment, table });
    // Where pg_temp is named elsewhere in the path, its tables would not come first.
    await port.execute(
      `select set_config('search_path', pg_catalog.concat_ws(', ', 'pg_temp', nullif(current_setting('search_path'), '')), true);
      set transaction read only; set local client_min_messages to default`,
    );
    if (readsPresent) return await fn(client);
    const before = await scans(port, shadowed);
    const result = await fn(client);
    const read = (await scans(port, shadowed)).find(({ count }, i) => count !== before[i]?.count);
    if (!read) return result;
    throw new BemiError("usage", `A query in the past read ${read.name} as it is now`, {
      hint:
        "Name the table without its schema, and not through a view or a function; see the option `readsPresent`.",
    });
  });
}

// How often each table itself was read in this transaction: by its name with a schema, for else the copy is read.
async function scans(
  port: Database,
  tables: readonly Tracked[],
): Promise<{ readonly name: string; readonly count: string }[]> {
  try {
    return await port.query(SCANS, [JSON.stringify(tables.map(({ name }) => name))]);
  } catch (error) {
    // The application has dealt with what failed: there is nothing more to be asked.
    if (sqlstateOf(error) === SQLSTATE.inFailedSqlTransaction) return [];
    throw error;
  }
}

const SCANS = `select t.name, (select coalesce(sum(pg_stat_get_xact_numscans(part.relid) +
      coalesce((select sum(pg_stat_get_xact_numscans(i.indexrelid)) from pg_index i where i.indrelid = part.relid), 0)), 0)
    from (select to_regclass(t.name) as relid union select relid from pg_partition_tree(to_regclass(t.name))) as part)::text as count
  from jsonb_array_elements_text($1::text::jsonb) with ordinality as t (name, n) order by t.n`;

interface Tracked {
  readonly name: string;
  readonly relname: string;
  readonly key: string | null;
  readonly indexes: readonly string[];
}

async function tracked(
  port: Database,
  schema: string,
  tables: readonly string[] | undefined,
): Promise<Tracked[]> {
  const names = tables && await Promise.all(tables.map((table) => resolve(port, table)));
  const rows = await port.query<{ json: string }>(inSchema(schema, TRACKED), [
    names ? JSON.stringify(names) : null,
  ]);
  return rows.map((row) => JSON.parse(row.json) as Tracked);
}

// What follows the table in the definition of an index; a name may hold anything, that too.
const NAME = `(?:"(?:[^"]|"")+"|[^". ]+)`;
const CLAUSES = `^CREATE (?:UNIQUE )?INDEX ${NAME} ON (?:ONLY )?(?:${NAME}[.])?${NAME}( USING .*)$`;

// Of tables with the same name, the one that a query without a schema would find.
const TRACKED =
  `select pg_catalog.json_build_object('name', name, 'relname', relname, 'key', key, 'indexes', indexes)::text as json
  from (
    select distinct on (c.relname) pg_catalog.format('%I.%I', n.nspname, c.relname) as name, c.relname,
      (select string_agg(quote_ident(k), ', ') from unnest("bemi".key_columns(c.oid)) as k) as key,
      (select coalesce(json_agg(substring(pg_get_indexdef(i.indexrelid) from '${CLAUSES}')), '[]')
        from pg_index i where i.indrelid = c.oid and not i.indisprimary and i.indisvalid) as indexes
    from "bemi".tracked_tables t join pg_class c on c.oid = t.relation join pg_namespace n on n.oid = c.relnamespace
    where t.root = t.relation and c.relkind in ('r', 'p')
      and ($1::text is null or $1::text::jsonb ? pg_catalog.format('%I.%I', n.nspname, c.relname))
    order by c.relname, pg_table_is_visible(c.oid) desc, n.nspname
  ) as tracked`;

async function shadow(
  port: Database,
  { schema, moment, table }: { readonly schema: string; readonly moment: Moment; readonly table: Tracked },
): Promise<void> {
  const parameters: string[] = [];
  const call = momentCall(moment, binder(parameters));
  const temporary = `pg_temp.${quoteIdentifier(table.relname)}`;
  // Without parameters in DDL: the shape first, then the rows.
  await port.execute(
    `create temporary table ${
      quoteIdentifier(table.relname)
    } on commit drop as select * from ${table.name} with no data`,
  );
  const rows = `${
    inSchema(schema, `select * from "bemi".${call.name}(null::`)
  }${table.name}, ${call.arguments})`;
  await inTodaysTypes(table.name, () => port.query(`insert into ${temporary} ${rows}`, parameters));
  const key = table.key === null ? "" : `alter table ${temporary} add primary key (${table.key});`;
  const indexes = table.indexes.map((definition) => `create index on ${temporary}${definition};`).join("\n");
  await port.execute(
    `${key} ${indexes} analyze ${temporary};
    create trigger read_only before insert or update or delete or truncate on ${temporary}
      for each statement execute function ${inSchema(schema, '"bemi"')}.refuse_past_write()`,
  );
}
