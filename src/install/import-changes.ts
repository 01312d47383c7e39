import { connect } from "../database/connect.ts";
import type { DatabaseLike } from "../database/port.ts";
import { BemiError } from "../errors.ts";
import { DEFAULT_SCHEMA, quoteLiteral } from "../identifiers.ts";
import type { SchemaOptions } from "./install.ts";
import { inSchema, requireInstalled } from "./schema.ts";
import { resolve } from "./track.ts";

/** What {@linkcode importChanges} did. */
export interface ImportResult {
  /** Changes that were taken over. */
  readonly imported: number;
  /** Changes that this log has itself, from the time in which both recorded. */
  readonly known: number;
  /** What the table is called now, where it gave its name to the view. */
  readonly renamed: string | undefined;
}

/**
 * Takes over what another Bemi's worker recorded, with its ids and times, in one transaction that keeps that worker
 * from writing. What both recorded is taken once. A table `public.changes` then makes room for the view of that name,
 * which whoever was granted to read the table can read.
 *
 * @param table as in SQL
 * @throws {BemiError} `table_missing`, `usage` where it is no log of Bemi's, `schema_missing`
 * @example
 * ```ts
 * import postgres from "postgres";
 * import { importChanges } from "@bemi/core/install";
 * const { imported, known } = await importChanges(postgres());
 * console.log(`${imported} changes, and ${known} that were in the log already`);
 * ```
 */
export async function importChanges(
  db: DatabaseLike,
  table: string = "public.changes",
  options: SchemaOptions = {},
): Promise<ImportResult> {
  const schema = options.schema ?? DEFAULT_SCHEMA;
  return await connect(db).transaction(async (tx) => {
    await requireInstalled(tx, schema);
    const name = await resolve(tx, table);
    const [kind] = await tx.query<{ fits: boolean }>(
      inSchema(
        schema,
        `select "bemi".is_other_log(oid) and relkind in ('r', 'p') and relnamespace <> '"bemi"'::regnamespace as fits
        from pg_class where oid = $1::text::regclass`,
      ),
      [name],
    );
    if (!kind?.fits) {
      throw new BemiError("usage", `${name} is not a table of changes that another Bemi's worker filled`, {
        hint: "Name the table that the worker wrote, as in SQL.",
      });
    }
    await tx.execute(
      inSchema(
        schema,
        `set local timezone = 'UTC'; set local client_min_messages = warning;
        lock table ${name} in share row exclusive mode;
        select "bemi".add_partition(month) from (
          select distinct date_trunc('month', committed_at)::date as month from ${name}) as months;`,
      ),
    );
    const [counts] = await tx.query<{ imported: string; total: string }>(inSchema(schema, copySql(name)));
    const imported = Number(counts?.imported ?? 0);
    const renamed = name === "public.changes" ? FORMER : undefined;
    if (renamed) await tx.execute(inSchema(schema, SWITCH));
    return { imported, known: Number(counts?.total ?? 0) - imported, renamed };
  });
}

const FORMER = "public.bemi_former_changes";

// A source of its own, ahead of all others in the total order. Of a transaction only the positions of its changes are
// known: the last stands for its commit's. Transaction numbers come again, but not within hours.
const copySql = (table: string): string => `
  with source as (
    insert into "bemi".sources (id, system_identifier, timeline, database, capture) overriding system value
    select least(0, min(id) - 1), 'imported', 0, ${quoteLiteral(table)}, 'wal' from "bemi".sources
    on conflict (system_identifier, timeline, database, capture, incarnation) do update set timeline = 0
    returning id
  ), tables as (
    select t.schema, t."table", coalesce(n.nspname, t.schema) as root_schema, coalesce(c.relname, t."table") as root_table,
      r.key_columns, "bemi".masked_columns(r.relation, r.masked, r.masked_numbers) as masked
    from (select distinct schema, "table" from ${table}) as t
      left join pg_class c on c.oid = pg_partition_root(to_regclass(pg_catalog.format('%I.%I', t.schema, t."table")))
      left join pg_namespace n on n.oid = c.relnamespace
      left join "bemi".tracked_tables r on r.schema = coalesce(n.nspname, t.schema) and r.name = coalesce(c.relname, t."table")
  ), theirs as (
    select o.*, t.root_schema, t.root_table, coalesce(t.masked, '{}') as masked, coalesce(t.key_columns, '{}') as key_columns,
      max(o.position) over one_transaction as commit_position,
      row_number() over (one_transaction order by o.position, o.operation, o.id) - 1 as transaction_index
    from ${table} o join tables t on t.schema = o.schema and t."table" = o."table"
    where o.operation in ('CREATE', 'UPDATE', 'DELETE', 'TRUNCATE')
    window one_transaction as (partition by o.database, o.transaction_id, o.committed_at)
  ), imported as (
    insert into "bemi".changes (id, database, schema, "table", primary_key, operation, before, after, context, committed_at,
      queued_at, created_at, transaction_id, position, source_id, commit_lsn, transaction_index)
    select o.id, o.database, o.root_schema, o.root_table,
      coalesce(o.primary_key, case when o.operation <> 'TRUNCATE' then
        "bemi".key_of(case o.operation when 'DELETE' then o.before else o.after end, o.key_columns) end),
      o.operation, o.before - o.masked, o.after - o.masked,
      case when exists (select from "bemi".tracked_tables where masked <> '{}') then o.context - 'SQL' else o.context end,
      o.committed_at, o.queued_at, o.created_at, o.transaction_id, o.position,
      s.id, '0/0'::pg_lsn + o.commit_position, o.transaction_index
    from theirs o, source s
    where not exists (select from "bemi".changes c
        where c.source_id <> s.id and c.schema = o.root_schema and c."table" = o.root_table and c.database = o.database
          and c.transaction_id & 4294967295 = o.transaction_id & 4294967295 and c.operation <> 'SNAPSHOT'
          and c.committed_at between o.committed_at - interval '6 hours' and o.committed_at + interval '6 hours')
      and not exists (select from "bemi".changes c where c.source_id = s.id and c.id = o.id)
    returning 1
  )
  select (select count(*) from imported)::text as imported, (select count(*) from theirs)::text as total`;

// Who was let read the table can read the view: but for those who have every new table by default privileges, as a
// host's API roles do, and where row security decided what they saw, which a view goes past.
const SWITCH = `
  alter table public.changes rename to bemi_former_changes;
  select "bemi".ensure_view();
  do $$
  declare
    v_grantee text;
  begin
    for v_grantee in
      select distinct case g.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end
      from pg_class c, aclexplode(c.relacl) g
      where c.oid = 'public.bemi_former_changes'::regclass and g.grantee <> c.relowner and g.privilege_type = 'SELECT'
        and not c.relrowsecurity
        and not exists (select from pg_default_acl d, aclexplode(d.defaclacl) g2
          where d.defaclobjtype = 'r' and d.defaclnamespace in (0, 'public'::regnamespace) and g2.grantee = g.grantee)
    loop
      execute format('grant select on public.changes to %s', v_grantee);
    end loop;
  end
  $$;`;
