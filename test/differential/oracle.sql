-- What a test writes down for itself, by the plainest of triggers: to_jsonb of each row, in the order of the AFTER
-- triggers. Nothing here is shared with what is tested.
create schema audit;

create table audit.log (
  number bigint generated always as identity,
  xid xid8 not null,
  statement text not null,
  schema text not null,
  "table" text not null,
  operation text not null,
  key text,
  former text,
  before jsonb,
  after jsonb,
  context text
);

create function audit.key_of(a_relation oid, a_row jsonb) returns text
language sql set search_path = pg_catalog
as $$
  select case count(*) when 0 then null when 1 then min(a_row ->> a.attname)
    else jsonb_agg(a_row -> a.attname order by array_position(i.indkey::int2[], a.attnum))::text end
  from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey)
  where i.indrelid = a_relation and i.indisprimary
$$;

create function audit.begin_statement() returns trigger
language plpgsql set search_path = pg_catalog
as $$
declare
  v_name text := 'audit.of_' || coalesce(pg_partition_root(tg_relid), tg_relid)::oid;
begin
  -- By table, innermost first: a row trigger may write others, or this one, before the rows of this statement are captured.
  perform set_config(v_name, tg_op || ',' || coalesce(current_setting(v_name, true), ''), true);
  perform set_config('audit.context', coalesce(current_setting('bemi.context', true), ''), true);
  return null;
end
$$;

create function audit.end_statement() returns trigger
language plpgsql set search_path = pg_catalog
as $$
declare
  v_name text := 'audit.of_' || coalesce(pg_partition_root(tg_relid), tg_relid)::oid;
begin
  perform set_config(v_name, regexp_replace(coalesce(current_setting(v_name, true), ''), tg_op || ',', ''), true);
  return null;
end
$$;

create function audit.capture() returns trigger
language plpgsql set search_path = pg_catalog
  set timezone = 'UTC' set datestyle = 'ISO, MDY' set intervalstyle = 'postgres' set bytea_output = 'hex'
  set extra_float_digits = 1 set quote_all_identifiers = off
as $$
declare
  v_root oid := coalesce(pg_partition_root(tg_relid), tg_relid);
  v_before jsonb := case when tg_op in ('UPDATE', 'DELETE') then to_jsonb(old) end;
  v_after jsonb := case when tg_op in ('UPDATE', 'INSERT') then to_jsonb(new) end;
  v_key text := case when tg_op <> 'TRUNCATE' then audit.key_of(v_root, coalesce(v_after, v_before)) end;
  v_former text := case tg_op when 'UPDATE' then audit.key_of(v_root, v_before) end;
begin
  insert into audit.log (xid, statement, schema, "table", operation, key, former, before, after, context)
  select pg_current_xact_id(), split_part(coalesce(current_setting('audit.of_' || v_root, true), ''), ',', 1), n.nspname, c.relname,
    case tg_op when 'INSERT' then 'CREATE' else tg_op end, v_key, case when v_former <> v_key then v_former end,
    coalesce(v_before, '{}'), coalesce(v_after, '{}'), current_setting('audit.context', true)
  from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = v_root;
  return null;
end
$$;

create function audit.attach() returns event_trigger
language plpgsql set search_path = pg_catalog
as $$
declare
  v_table record;
  v_trigger record;
begin
  if current_setting('audit.attaching', true) = 'on' then
    return;
  end if;
  perform set_config('audit.attaching', 'on', true);
  for v_table in
    select c.oid::regclass as name, c.oid, c.relispartition
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p') and c.relpersistence <> 't'
      -- The scenarios before are done.
      and substring(n.nspname from '^s([0-9]+)z')::int = (select max(substring(nspname from '^s([0-9]+)z')::int) from pg_namespace)
    -- A root that was detached first: its partitions have its trigger then, and need none of their own.
    order by c.relispartition
  loop
    for v_trigger in
      select tgname from pg_trigger where tgrelid = v_table.oid and tgname = 'zz_audit_' || tgrelid and v_table.relispartition
    loop
      execute format('drop trigger %I on %s', v_trigger.tgname, v_table.name);
    end loop;
    if not exists (select from pg_trigger where tgrelid = v_table.oid and tgname like 'zz_audit%') then
      execute format('create trigger %I after insert or update or delete on %s for each row execute function audit.capture()',
        'zz_audit_' || v_table.oid, v_table.name);
    end if;
    if not exists (select from pg_trigger where tgrelid = v_table.oid and tgname = 'aa_begin') then
      execute format('create trigger aa_begin before insert or update or delete on %s for each statement execute function audit.begin_statement()', v_table.name);
      execute format('create trigger aa_end after insert or update or delete on %s for each statement execute function audit.end_statement()', v_table.name);
      execute format('create trigger aa_truncate after truncate on %s for each statement execute function audit.capture()', v_table.name);
    end if;
    for v_trigger in
      select tgname from pg_trigger
      where tgrelid = v_table.oid and (tgname like 'zz_audit%' or tgname like 'aa\_%') and tgenabled <> 'A'
    loop
      execute format('alter table only %s enable always trigger %I', v_table.name, v_trigger.tgname);
    end loop;
  end loop;
  perform set_config('audit.attaching', '', true);
end
$$;

create event trigger audit_attach on ddl_command_end execute function audit.attach();
alter event trigger audit_attach enable always;
