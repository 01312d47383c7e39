import { connect } from "../database/connect.ts";
import type { DatabaseLike } from "../database/port.ts";
import { SQLSTATE, sqlstateOf } from "../database/sqlstate.ts";
import { BemiError } from "../errors.ts";
import { DEFAULT_SCHEMA } from "../identifiers.ts";
import type { SchemaOptions } from "./install.ts";
import { inSchema, requireInstalled } from "./schema.ts";

/**
 * Removes everything that {@linkcode install} and `track` made, the log of changes included, in one transaction.
 *
 * @throws {BemiError} `schema_missing`, `worker_running`
 * @example
 * ```ts
 * import postgres from "postgres";
 * import { uninstall } from "@bemi/core/install";
 * await uninstall(postgres());
 * ```
 */
export async function uninstall(db: DatabaseLike, options: SchemaOptions = {}): Promise<void> {
  const schema = options.schema ?? DEFAULT_SCHEMA;
  await connect(db).transaction(async (tx) => {
    await tx.query("select pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('bemi.install', 0))");
    await requireInstalled(tx, schema);
    await tx.execute("set local search_path = pg_catalog, pg_temp; set local client_min_messages = warning");
    try {
      await tx.execute(inSchema(schema, UNINSTALL));
    } catch (error) {
      if (sqlstateOf(error) !== SQLSTATE.objectInUse) throw error;
      throw new BemiError("worker_running", "A worker is reading the replication slot", {
        hint: "Stop the worker, then run this again.",
        cause: error,
      });
    }
  });
}

const UNINSTALL = `do $$
declare
  v_object record;
  v_schema oid := '"bemi"'::regnamespace;
begin
  for v_object in
    select e.evtname from pg_event_trigger e join pg_proc p on p.oid = e.evtfoid where p.pronamespace = v_schema
  loop
    execute format('drop event trigger %I', v_object.evtname);
  end loop;
  for v_object in
    select t.relation from "bemi".tracked_tables t join pg_class c on c.oid = t.relation
  loop
    perform "bemi".untrack(v_object.relation);
  end loop;
  -- What waits for the commit would keep its table from being dropped; an older installation has none.
  if exists (select from pg_constraint where connamespace = v_schema and conname = 'found_at_commit') then
    set constraints "bemi".found_at_commit immediate;
  end if;
  for v_object in
    select slot_name from pg_replication_slots
    where database = current_database() and (slot_name = "bemi".slot_name() or slot_name in (select slot from "bemi".checkpoints))
  loop
    perform pg_drop_replication_slot(v_object.slot_name);
  end loop;
  for v_object in
    select pubname from pg_publication
    where pubname = "bemi".own_name() and obj_description(oid, 'pg_publication') = 'Tables tracked by Bemi'
  loop
    execute format('drop publication %I', v_object.pubname);
  end loop;
  -- Whatever a lost ledger row left behind.
  for v_object in
    select t.tgname, t.tgrelid::regclass as relation
    from pg_trigger t join pg_proc p on p.oid = t.tgfoid join pg_class c on c.oid = t.tgrelid
    where p.pronamespace = v_schema and c.relnamespace <> v_schema and t.tgparentid = 0
  loop
    execute format('drop trigger %I on %s', v_object.tgname, v_object.relation);
  end loop;
  if obj_description(to_regclass('public.changes'), 'pg_class') = 'Changes of tracked tables, from "bemi".changes' then
    drop view public.changes;
    -- The table whose changes were imported gets its name back.
    if to_regclass('public.bemi_former_changes') is not null
      and exists (select from "bemi".sources where system_identifier = 'imported' and database = 'public.changes')
    then
      alter table public.bemi_former_changes rename to changes;
    end if;
  end if;
  if obj_description(v_schema, 'pg_namespace') = 'Change tracking by Bemi' then
    drop schema "bemi" cascade;
    return;
  end if;
  -- Somebody else made the schema: it stays, empty.
  drop view "bemi".own_triggers, "bemi".structured_types; drop table "bemi".changes, "bemi".migrations cascade;
  for v_object in select oid::regclass as name from pg_class where relnamespace = v_schema and relkind = 'r' loop
    execute format('drop table %s cascade', v_object.name);
  end loop;
  for v_object in select oid::regprocedure as name from pg_proc where pronamespace = v_schema loop
    execute format('drop function if exists %s cascade', v_object.name);
  end loop;
  for v_object in select oid::regclass as name from pg_class where relnamespace = v_schema and relkind = 'c' loop
    execute format('drop type %s cascade', v_object.name);
  end loop;
  for v_object in select oid::regclass as name from pg_class where relnamespace = v_schema and relkind = 'S' loop
    execute format('drop sequence %s', v_object.name);
  end loop;
end
$$`;
