import { DEFAULT_SCHEMA } from "../identifiers.ts";
import type { SchemaOptions } from "./install.ts";
import { inSchema } from "./schema.ts";

/**
 * SQL that makes the roles of least privilege, for the owner of the installation to read and run: `bemi_application`
 * reads and writes the tracked tables, and has no right on the log; `bemi_reader` reads the log; `bemi_worker` fills it
 * from the Write-Ahead Log. The owner stays what it is, and migrates. None can log in until somebody lets it. To be run in
 * each database: roles are the cluster's, so those that are there get their rights, and uninstalling leaves them.
 *
 * @throws {BemiError} `invalid_name`
 * @example
 * ```ts
 * import { rolesSql } from "@bemi/core/install";
 * console.log(rolesSql({ schema: "audit" })); // to be read, and run as the owner
 * ```
 */
export function rolesSql(options: SchemaOptions = {}): string {
  return inSchema(options.schema ?? DEFAULT_SCHEMA, ROLES);
}

const ROLES =
  `-- What the application connects as: it reads and writes the tables of the schemas in which tables are tracked.
-- It owns nothing, so that it can neither switch tracking off nor touch the log.
do $$
declare
  v_schema text;
begin
  -- Roles are the cluster's: another database may have made them.
  if to_regrole('bemi_application') is null then
    create role bemi_application;
  end if;
  for v_schema in
    select distinct quote_ident(n.nspname)
    from "bemi".tracked_tables t join pg_class c on c.oid = t.relation join pg_namespace n on n.oid = c.relnamespace
  loop
    execute format('grant usage on schema %s to bemi_application;
      grant select, insert, update, delete on all tables in schema %1$s to bemi_application;
      grant usage on all sequences in schema %1$s to bemi_application;
      alter default privileges in schema %1$s grant select, insert, update, delete on tables to bemi_application;
      alter default privileges in schema %1$s grant usage on sequences to bemi_application', v_schema);
  end loop;
  if to_regclass('public.changes') is not null then
    revoke all on public.changes from bemi_application;
  end if;
end
$$;

-- Reads the log, and nothing else.
do $$
begin
  if to_regrole('bemi_reader') is null then
    create role bemi_reader;
  end if;
end
$$;
grant usage on schema "bemi" to bemi_reader;
grant select on "bemi".migrations, "bemi".changes, "bemi".sources, "bemi".gaps, "bemi".epochs, "bemi".tracked_tables, "bemi".untracked, "bemi".baselines,
  "bemi".tables, "bemi".table_names, "bemi".table_columns, "bemi".breaks, "bemi".set_aside,
  "bemi".plain_reads, "bemi".plain_read_ends to bemi_reader;
grant usage on type "bemi".moment, "bemi".span, "bemi".ground, "bemi".place, "bemi".stay, "bemi".last_image to bemi_reader;
grant execute on function "bemi".diff(jsonb, jsonb), "bemi".history(text, text), "bemi".as_of(anyelement, timestamptz, text),
  "bemi".as_of_change(anyelement, uuid, text, text), "bemi".masked_columns(oid, text[], smallint[]),
  "bemi".rows_query(regclass, "bemi".moment, text), "bemi".table_of_row(anyelement), "bemi".remark_as_of(regclass, "bemi".moment),
  "bemi".images_as_of(regclass, "bemi".moment), "bemi".images_query(regclass, "bemi".moment, "bemi".ground, text),
  "bemi".ground_of(regclass, "bemi".moment, text), "bemi".live_query(regclass, "bemi".ground, text),
  "bemi".key_image(regclass, "bemi".moment, "bemi".ground, text), "bemi".marks_of("bemi".span[], timestamptz),
  "bemi".is_past("bemi".moment, timestamptz, integer, pg_lsn, bigint, bigint),
  "bemi".last_image(oid, text, timestamptz), "bemi".is_plain(oid),
  "bemi".moment_at(timestamptz), "bemi".refuse_past_write(), "bemi".moment_of(uuid, text, regclass, text), "bemi".goes_on(integer[], bigint, pg_lsn, bigint),
  "bemi".cut_transactions("bemi".moment, integer[], regclass, text), "bemi".past_condition("bemi".moment), "bemi".breaks_of(regclass, timestamptz), "bemi".log_start(),
  "bemi".table_spans(integer), "bemi".names_condition(integer), "bemi".table_number(text), "bemi".wal_lag(), "bemi".wal_target(timestamptz), "bemi".last_from_wal(),
  "bemi".spans_named(text), "bemi".has_wide_key(text, text), "bemi".spelled_key(text), "bemi".stays("bemi".span[], text, "bemi".place, boolean), "bemi".shape_image(integer, jsonb, timestamptz), "bemi".shape_image("bemi".table_columns[], jsonb, timestamptz), "bemi".known_hint(regclass, timestamptz),
  "bemi".key_columns(oid), "bemi".key_expression(text[]), "bemi".key_literals(oid, text[], text[]), "bemi".plain_type(oid, integer),
  "bemi".effects_without_overtaken(text, boolean, text[]), "bemi".repeatable_image(jsonb, numeric, text) to bemi_reader;
do $$
begin
  if to_regclass('public.changes') is not null then
    grant select on public.changes to bemi_reader;
  end if;
end
$$;

-- Runs bemi-poll. REPLICATION is a superuser's to give, is not inherited, and reads the rows of every published table.
-- Its own search path: a database may set one in which somebody's functions come before PostgreSQL's.
do $$
begin
  if to_regrole('bemi_worker') is null then
    create role bemi_worker replication;
    alter role bemi_worker set search_path = pg_catalog, pg_temp;
  end if;
end
$$;
grant usage on schema "bemi" to bemi_worker;
grant select on "bemi".migrations, "bemi".tracked_tables to bemi_worker;
grant select, insert, update on "bemi".checkpoints to bemi_worker;
grant insert on "bemi".changes to bemi_worker;
grant execute on function "bemi".own_name(), "bemi".slot_name(), "bemi".this_cluster(), "bemi".read_seal(),
  "bemi".find_checkpoint(text, integer, text),
  "bemi".open_checkpoint(text, integer, text, text, bigint, pg_lsn, pg_lsn, pg_lsn, boolean, text), "bemi".read_tables(),
  "bemi".describe_types(oid[]), "bemi".write_or_set_aside(uuid, text, boolean, text),
  "bemi".write_difference(uuid, text, jsonb),
  "bemi".maintain() to bemi_worker;

-- Then: alter role bemi_application login password '...'; and so the others.
`;
