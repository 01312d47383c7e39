-- Which tables are tracked, and how: track(), untrack(), and the triggers of each.

-- regclass, since it survives dump and restore by name where a plain OID does not.
create table "bemi".tracked_tables (
  relation regclass primary key,
  root regclass not null,
  schema text not null,
  name text not null,
  capture text not null default 'trigger' check (capture in ('trigger', 'wal')),
  ignored text[] not null default '{}',
  masked text[] not null default '{}',
  -- Beside the names: a renamed column stays masked under both of its names.
  masked_numbers smallint[] not null default '{}',
  is_strict boolean not null default false,
  -- Whether statements that match nothing are to cost nothing, at the price of a check for each row that matches.
  is_polled boolean not null default false,
  key_columns text[] not null default '{}',
  -- See needs_row_level().
  row_level boolean not null default false,
  former_replica_identity "char" not null,
  former_identity_index regclass,
  -- Whether the identity in force is ours, and so to be taken back.
  has_full_identity boolean not null default false,
  -- From when on every write is captured; set once the table is locked.
  tracked_at timestamptz not null default '-infinity',
  -- Until when it was captured from the WAL, where it was since then: what was lost of the WAL is missing all the same.
  left_wal_at timestamptz,
  -- What a command did could not be followed, so that the next one tries again.
  is_pending boolean not null default false,
  -- What trigger capture writes to, known for one start of the server in one database: the cluster's identity is in a
  -- file, too slow to read each time.
  source_id integer,
  source_database name,
  source_known_since timestamptz
);

-- What untrack() took out, so that it stays out though all tables are tracked; what it was called on beside each.
create table "bemi".untracked (
  relation regclass primary key,
  root regclass not null
);

-- What the messages of context triggers have and leave out.
create table "bemi".emission (
  singleton boolean primary key default true check (singleton),
  -- A statement's text may hold any column's value: once one table masks some, no text is kept.
  omits_statements boolean not null,
  -- The secret that messages in the Write-Ahead Log have, once they are sealed.
  seal text
);

-- Whether all of that is as it is at first, and the database in an encoding whose bytes messages may have as they are. The
-- answer is the body of this function, which PL/pgSQL takes into its plans: to read the table before each statement would
-- cost as much as the message.
create function "bemi".is_plain_emission() returns boolean
language sql stable
return false;

-- The same for trigger capture, which needs to know of statements alone.
create function "bemi".keeps_statements() returns boolean
language sql stable
return true;

-- Whether event triggers notice what happens to tables, so that it is known here. As follow_ddl() found it.
create function "bemi".follows_ddl() returns boolean
language sql stable
return false;

-- Gives these functions their bodies. Also called where a slot is made: a dump may have come from a database in another
-- encoding.
create function "bemi".settle_emission() returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  v_keeps boolean := (select not omits_statements from "bemi".emission);
  v_is_plain boolean := v_keeps and (select seal is null from "bemi".emission) and getdatabaseencoding() in ('UTF8', 'SQL_ASCII');
begin
  if v_is_plain <> "bemi".is_plain_emission() then
    execute 'create or replace function "bemi".is_plain_emission() returns boolean language sql stable return ' || v_is_plain;
  end if;
  if v_keeps <> "bemi".keeps_statements() then
    execute 'create or replace function "bemi".keeps_statements() returns boolean language sql stable return ' || v_keeps;
  end if;
end
$$;

create function "bemi".note_emission() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  perform "bemi".settle_emission();
  return null;
end
$$;

create trigger note_emission after insert or update on "bemi".emission
  for each row execute function "bemi".note_emission();

insert into "bemi".emission (omits_statements) values (false);

create function "bemi".note_masks() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  update "bemi".emission e set omits_statements = not e.omits_statements
  where e.omits_statements <> exists (select from "bemi".tracked_tables where masked <> '{}');
  return null;
end
$$;

create trigger note_masks after insert or update or delete or truncate on "bemi".tracked_tables
  for each statement execute function "bemi".note_masks();

-- The columns of the primary key, in key order; none where there is no key.
create function "bemi".key_columns(a_relation oid) returns text[]
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg(a.attname::text order by k.ordinality), '{}')
  from pg_index i, unnest(i.indkey) with ordinality as k (attnum, ordinality), pg_attribute a
  where i.indrelid = a_relation and i.indisprimary and a.attrelid = a_relation and a.attnum = k.attnum
    and k.ordinality <= i.indnkeyatts
$$;

create function "bemi".composite_key(a_row jsonb, a_columns text[]) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select jsonb_agg(a_row -> c.name order by c.ordinality)::text
  from unnest(a_columns) with ordinality as c (name, ordinality)
$$;

-- A row's identity as text: one column's text, a JSON array in key order, or NULL without a key.
-- With a RETURN, so that it is inlined where it is called for each row.
create function "bemi".key_of(a_row jsonb, a_columns text[]) returns text
language sql immutable
return case cardinality(a_columns)
  when 0 then null
  when 1 then a_row ->> a_columns[1]
  else "bemi".composite_key(a_row, a_columns)
end;

-- What is never written down: the columns masked by name, and whatever the masked columns are called today.
create function "bemi".masked_columns(a_relation oid, a_masked text[], a_numbers smallint[]) returns text[]
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select a_masked || coalesce(array_agg(a.attname::text), '{}')
  from pg_attribute a
  where a.attrelid = a_relation and a.attnum = any (a_numbers)
$$;

-- Names that the cluster or the database share, such as the publication's: unlike those of another installation.
create function "bemi".own_name() returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select 'bemi' || case when nspname <> 'bemi' then '_' || left(md5(nspname), 6) else '' end
  from pg_namespace where oid = '"bemi"'::regnamespace
$$;

-- The triggers that belong to this installation: their functions are in its schema. Names begin with `!`, to sort and
-- so to fire ahead of the application's own; a second installation, in another schema, has names of its own.
create view "bemi".own_triggers as
  select t.tgrelid::regclass as relation, t.tgname as name, t.tgenabled as enabled, t.tgparentid <> 0 as is_cloned, t.tgtype as events,
    t.tgisinternal as is_internal
  from pg_trigger t join pg_proc p on p.oid = t.tgfoid
  -- To PostgreSQL 14 what a partition has from its root is internal.
  where p.pronamespace = '"bemi"'::regnamespace and (not t.tgisinternal or t.tgparentid <> 0);

create function "bemi".trigger_name(a_purpose text) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select '!' || "bemi".own_name() || '_' || a_purpose
$$;

-- Whether a trigger is one of an installation's, this or another, which write no table but their log, or of another
-- Bemi's, which write none at all.
create function "bemi".is_capture(a_name name) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select a_name like E'!bemi\\_%' or a_name like E'\\_bemi\\_row\\_trigger\\_%'
$$;

-- A table with its partitions and inheritance children, itself first.
create function "bemi".with_descendants(a_relation regclass) returns setof regclass
language sql stable set search_path = pg_catalog, pg_temp
as $$
  with recursive family as (
    select a_relation::oid as relation, 0 as depth
    union
    select i.inhrelid, f.depth + 1 from family f join pg_inherits i on i.inhparent = f.relation
  )
  select relation::regclass from family group by relation order by min(depth)
$$;

-- Statement-level capture reads transition tables. It reports a statement after all that its row triggers did, so a
-- key that such a trigger touches again would get its history the wrong way round: those tables are captured by row. One
-- that is captured from the WAL needs of it to have noted where a statement begins, for children that are not: an unlogged
-- one's rows are captured by row, and a statement that names the parent fires the parent's triggers alone.
create function "bemi".needs_row_level(a_relation oid, a_capture text) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
  with recursive family as (
    select a_relation as relation
    union
    select case when i.inhrelid = f.relation then i.inhparent else i.inhrelid end
    from family f join pg_inherits i on f.relation in (i.inhrelid, i.inhparent)
  ), reached as (
    -- Every table that a foreign key action of the family can write, and so on.
    select c.conrelid as relation
    from family f join pg_constraint c on c.confrelid = f.relation
    where c.contype = 'f' and (c.confdeltype in ('c', 'n', 'd') or c.confupdtype in ('c', 'n', 'd'))
    union
    select c.conrelid
    from reached r join pg_constraint c on c.confrelid = r.relation
    where c.contype = 'f' and (c.confdeltype in ('c', 'n', 'd') or c.confupdtype in ('c', 'n', 'd'))
  )
  select case when a_capture = 'wal' then exists (
    select from "bemi".with_descendants(a_relation) as d (relation) join "bemi".tracked_tables t using (relation)
      join pg_class c on c.oid = d.relation
    where t.capture = 'trigger' and not c.relispartition)
  else exists (select from pg_class where oid = a_relation and relkind = 'f')
    -- What a MERGE moves to another partition is not among the rows of its UPDATE, but of a DELETE and an INSERT, whose
    -- triggers it may not fire.
    or exists (select from pg_class where oid = a_relation and (relkind = 'p' or relispartition))
      and current_setting('server_version_num')::integer >= 150000
    -- Of a row that is routed to a partition the transition table may have what was there before the columns were generated.
    or exists (select from family f join pg_attribute a on a.attrelid = f.relation
      where a.attgenerated = 's' and (select relkind = 'p' or relispartition from pg_class where oid = a_relation))
    -- An inheritance child's own columns are missing from its parent's transition table.
    or exists (select from pg_inherits i join pg_class c on c.oid = i.inhrelid
      where a_relation in (i.inhrelid, i.inhparent) and not c.relispartition)
    or exists (select from pg_trigger t join family f on t.tgrelid = f.relation
      where not t.tgisinternal and not "bemi".is_capture(t.tgname) and t.tgtype & 1 = 1 and t.tgenabled <> 'D')
    or exists (select from reached r join family f using (relation))
    or exists (select from reached r join pg_trigger t on t.tgrelid = r.relation
      where not t.tgisinternal and not "bemi".is_capture(t.tgname) and t.tgenabled <> 'D')
  end
$$;

-- The triggers that a tracked table should have, as name and definition.
create function "bemi".wanted_triggers(a_relation oid, a_capture text, a_row_level boolean)
returns table (name text, definition text, events smallint)
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select "bemi".trigger_name(w.purpose), format(w.definition, "bemi".trigger_name(w.purpose), a_relation::regclass),
    -- Of pg_trigger.tgtype, where they depend on an option: BEFORE with INSERT and TRUNCATE, or with all four.
    case when w.purpose = 'context' then case when t.is_polled then 2 + 4 + 32 else 2 + 4 + 8 + 16 + 32 end end::smallint
  from pg_class c left join "bemi".tracked_tables t on t.relation = c.oid, lateral (values
    ('context', null, case when t.is_polled
      then 'create trigger %I before insert or truncate on %s for each statement execute function "bemi".emit_context()'
      else 'create trigger %I before insert or update or delete or truncate on %s for each statement execute function "bemi".emit_context()' end),
    ('hold', null, 'create trigger %I before update or delete on %s for each statement execute function "bemi".hold_context()'),
    ('held', true, 'create trigger %I before update or delete on %s for each row when (current_setting(''bemi.held'', true) <> '''') execute function "bemi".emit_held()'),
    ('insert', false, 'create trigger %I after insert on %s referencing new table as bemi_new for each statement execute function "bemi".capture_statement()'),
    ('update', false, 'create trigger %I after update on %s referencing old table as bemi_old new table as bemi_new for each statement execute function "bemi".capture_statement()'),
    ('delete', false, 'create trigger %I after delete on %s referencing old table as bemi_old for each statement execute function "bemi".capture_statement()'),
    ('row', true, 'create trigger %I after insert or update or delete on %s for each row execute function "bemi".capture_row()'),
    ('begin', true, 'create trigger %I before insert or update or delete on %s for each statement execute function "bemi".begin_statement()'),
    ('end', true, 'create trigger %I after insert or update or delete on %s for each statement execute function "bemi".end_statement()'),
    ('truncating', null, 'create trigger %I before truncate on %s for each statement execute function "bemi".begin_truncate()'),
    ('truncate', null, 'create trigger %I after truncate on %s for each statement execute function "bemi".capture_truncate()')
  ) as w (purpose, row_level, definition)
  where c.oid = a_relation
    and (w.purpose in ('begin', 'end') or (w.purpose in ('context', 'hold', 'held')) = (a_capture = 'wal'))
    and (w.row_level is null or w.row_level = a_row_level or w.purpose = 'held')
    and (w.purpose not in ('hold', 'held') or t.is_polled)
    and not (w.purpose = 'truncate' and c.relkind = 'f')
    and not (w.purpose = 'truncating' and c.relkind <> 'p' and not c.relispartition)
    -- A partition gets its row trigger from the root, by PostgreSQL itself.
    and not (w.purpose in ('row', 'held') and c.relispartition)
$$;

-- Gives one tracked table the triggers it should have; touches nothing, and so locks nothing, where they are there.
create function "bemi".attach(a_relation regclass) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  v_capture text := (select capture from "bemi".tracked_tables where relation = a_relation);
  v_row_level boolean := "bemi".needs_row_level(a_relation, v_capture);
  v_trigger record;
  v_changed boolean := false;
begin
  for v_trigger in
    select o.name from "bemi".own_triggers o
    where o.relation = a_relation and not o.is_cloned
      and o.name not in (select w.name from "bemi".wanted_triggers(a_relation, v_capture, v_row_level) w
        where w.events is null or w.events = o.events)
  loop
    execute format('drop trigger %I on %s', v_trigger.name, a_relation);
    v_changed := true;
  end loop;
  for v_trigger in
    select w.name, w.definition from "bemi".wanted_triggers(a_relation, v_capture, v_row_level) w
    where not exists (select from "bemi".own_triggers o where o.relation = a_relation and o.name = w.name)
  loop
    execute v_trigger.definition;
    v_changed := true;
  end loop;
  for v_trigger in
    select o.name from "bemi".own_triggers o
    where o.relation = a_relation and o.enabled <> 'A'
      -- Which a superuser alone may do, and before PostgreSQL 15 nobody else may set the role that it is about.
      and (not o.is_internal or (select rolsuper from pg_roles where rolname = current_user))
  loop
    -- ALWAYS: session_replication_role = replica must not switch tracking off.
    execute format('alter table only %s enable always trigger %I', a_relation, v_trigger.name);
    v_changed := true;
  end loop;
  if v_capture = 'wal' then
    v_changed := "bemi".publish(a_relation) or v_changed;
  else
    v_changed := "bemi".withdraw(a_relation) or v_changed;
  end if;
  update "bemi".tracked_tables t
  set row_level = v_row_level, key_columns = "bemi".key_columns(t.root), schema = n.nspname, name = c.relname, is_pending = false
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where t.relation = a_relation and c.oid = a_relation
    and (t.row_level, t.key_columns, t.schema, t.name, t.is_pending)
      is distinct from (v_row_level, "bemi".key_columns(t.root), n.nspname::text, c.relname::text, false);
  if exists (select from "bemi".tracked_tables where relation = a_relation and root = a_relation) then
    perform "bemi".remember(a_relation);
  end if;
  if v_changed and v_capture = 'wal' then
    perform "bemi".note_version(a_relation);
  elsif v_changed then
    -- Here, for where the first write registered it, those of others would wait for its commit.
    perform "bemi".source_of_this_start(a_relation);
  end if;
  return v_changed;
end
$$;

-- The same for tables that this one's way of being tracked means something to: see needs_row_level().
create function "bemi".attach_others(a_relation regclass) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  v_relation regclass;
begin
  perform set_config('bemi.reconciling', 'on', true);
  for v_relation in select "bemi".of_other_level(array[a_relation::oid]) loop
    perform "bemi".attach(v_relation);
  end loop;
  perform set_config('bemi.reconciling', '', true);
end
$$;

create function "bemi".detach(a_relation regclass) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  v_name name;
begin
  for v_name in
    select o.name from "bemi".own_triggers o where o.relation = a_relation and not o.is_cloned
  loop
    execute format('drop trigger %I on %s', v_name, a_relation);
  end loop;
  perform "bemi".withdraw(a_relation);
end
$$;

-- Whether a schema holds an installation, this or another: two that track each other would never come to an end.
create function "bemi".is_installation(a_schema oid) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select exists (select from pg_class where relnamespace = a_schema and relname = 'tracked_tables')
    and exists (select from pg_proc where pronamespace = a_schema and proname in ('refuse_rewrite', 'own_name') having count(distinct proname) = 2)
$$;

create function "bemi".refusal(a_relation regclass) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select case
    when n.nspname = 'pg_catalog' or n.nspname = 'information_schema' or n.nspname like E'pg\\_toast%' then 'it is a system catalog'
    when n.oid = '"bemi".changes'::regclass::oid or n.nspname = (select nspname from pg_namespace where oid = (select relnamespace from pg_class where oid = '"bemi".changes'::regclass)) then 'it belongs to the log itself'
    when "bemi".is_installation(n.oid) then 'it belongs to another installation of Bemi'
    when c.relpersistence = 't' then 'it is temporary'
    when c.relkind = 'v' then 'it is a view: track the tables that it reads'
    when c.relkind = 'm' then 'it is a materialized view'
    when c.relkind not in ('r', 'p', 'f') then 'it is not a table'
  end
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where c.oid = a_relation
$$;

-- Whether a table is another Bemi's log: see importChanges().
create function "bemi".is_other_log(a_relation oid) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select count(*) = 13 from pg_attribute
  where attrelid = a_relation and not attisdropped and attname in ('id', 'database', 'schema', 'table', 'primary_key', 'operation',
    'before', 'after', 'context', 'committed_at', 'queued_at', 'transaction_id', 'position')
$$;

-- The tables that were untracked, and what inherits from them, tracked ones aside. A partition goes with its root.
create function "bemi".left_out() returns table (relation regclass, root regclass)
language sql stable set search_path = pg_catalog, pg_temp
as $$
  with recursive family as (
    select u.relation::oid as relation, u.root::oid as root from "bemi".untracked u
    where not exists (select from "bemi".tracked_tables t where t.relation in (u.relation, pg_partition_root(u.relation)))
    union
    select i.inhrelid, f.root from family f join pg_inherits i on i.inhparent = f.relation
    where not exists (select from "bemi".tracked_tables t where t.relation = i.inhrelid)
  )
  select f.relation::regclass, f.root::regclass from family f
$$;

-- What "every table" means: the ordinary and partitioned ones that can be tracked, and are neither an extension's nor
-- a log, nor were untracked. Of some relations, those that it means.
create function "bemi".all_tables(a_among oid[] default null) returns setof regclass
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select c.oid::regclass from pg_class c
  where c.relkind in ('r', 'p') and not c.relispartition and (a_among is null or c.oid = any (a_among))
    and "bemi".refusal(c.oid) is null and not "bemi".is_other_log(c.oid)
    and not exists (select from pg_depend where classid = 'pg_class'::regclass and objid = c.oid and deptype = 'e')
    and c.oid not in (select l.relation from "bemi".left_out() as l)
$$;

-- Options: capture, ignore (columns whose change alone records nothing), mask (columns absent from every copy),
-- strict (a failure of the capture fails the write), polled (UPDATE and DELETE often match nothing). What is left out keeps its former value.
create function "bemi".track(a_relation regclass, a_options jsonb default '{}') returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  v_reason text := "bemi".refusal(a_relation);
  v_root regclass := coalesce(pg_partition_root(a_relation), a_relation);
  v_unknown text;
  v_ignored text[] := case when a_options ? 'ignore' then array(select jsonb_array_elements_text(a_options -> 'ignore')) end;
  v_masked text[] := case when a_options ? 'mask' then array(select jsonb_array_elements_text(a_options -> 'mask')) end;
  v_capture text := a_options ->> 'capture';
  v_relation regclass;
begin
  if v_reason is not null then
    raise wrong_object_type using message = format('Cannot track %s, as %s', a_relation, v_reason),
      hint = 'What can be tracked are tables, partitioned and foreign ones too.';
  end if;
  if not (select pg_has_role(session_user, relowner, 'usage') from pg_class where oid = a_relation) then
    raise insufficient_privilege using
      message = format('Cannot track %s, as %I does not own it', a_relation, session_user),
      hint = 'Run this as the owner of the table.';
  end if;
  if v_capture not in ('trigger', 'wal') then
    raise invalid_parameter_value using message = format('Unknown capture %L', v_capture),
      hint = 'Capture is trigger or wal.';
  end if;
  select string_agg(format('%I', o), ', ') into v_unknown
  from jsonb_object_keys(a_options) as o where o not in ('capture', 'ignore', 'mask', 'strict', 'polled');
  if v_unknown is not null then
    raise invalid_parameter_value using message = format('Unknown option %s', v_unknown),
      hint = 'Options are capture, ignore, mask, strict and polled.';
  end if;
  select string_agg(format('%I', o), ', ') into v_unknown
  from unnest(v_ignored || v_masked) as o
  where not exists (select from pg_attribute where attrelid = v_root and attname = o and attnum > 0 and not attisdropped);
  if v_unknown is not null then
    raise undefined_column using message = format('Cannot track %s, as it has no column %s', a_relation, v_unknown),
      hint = format('Name columns exactly as the catalog has them, without quotes: %s.',
        (select string_agg(attname, ', ' order by attnum) from pg_attribute where attrelid = v_root and attnum > 0 and not attisdropped));
  end if;
  if v_masked && "bemi".key_columns(v_root) then
    raise invalid_parameter_value using
      message = format('Cannot mask the primary key of %s: it identifies the changes', a_relation),
      hint = 'Mask other columns, or give the table a key that may be seen.';
  end if;
  delete from "bemi".untracked u where v_root in (u.relation, u.root, pg_partition_root(u.relation));
  -- A child that was untracked by its own name stays so.
  for v_relation in
    select d.relation from "bemi".with_descendants(v_root) as d (relation)
    where d.relation not in (select l.relation from "bemi".left_out() as l)
  loop
    insert into "bemi".tracked_tables as t (relation, root, schema, name, former_replica_identity, capture, ignored, masked, is_strict, is_polled)
    select c.oid, case when c.relispartition or c.relkind = 'p' then v_root else c.oid::regclass end,
      n.nspname, c.relname, c.relreplident, coalesce(v_capture, (select s.capture from "bemi".settings s)),
      coalesce(v_ignored, '{}'), coalesce(v_masked, '{}'), coalesce((a_options ->> 'strict')::boolean, false),
      coalesce((a_options ->> 'polled')::boolean, false)
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.oid = v_relation
    on conflict (relation) do update set
      root = excluded.root,
      left_wal_at = case when t.capture = 'wal' and v_capture = 'trigger' then clock_timestamp() else t.left_wal_at end,
      capture = coalesce(v_capture, t.capture),
      ignored = coalesce(v_ignored, t.ignored),
      masked = coalesce(v_masked, t.masked),
      is_strict = coalesce((a_options ->> 'strict')::boolean, t.is_strict),
      is_polled = coalesce((a_options ->> 'polled')::boolean, t.is_polled);
    update "bemi".tracked_tables t
    set masked_numbers = coalesce((select array_agg(a.attnum) from pg_attribute a
      where a.attrelid = t.relation and a.attname = any (t.masked) and a.attnum > 0), '{}')
    where t.relation = v_relation and v_masked is not null;
    perform set_config('bemi.reconciling', 'on', true);
    perform "bemi".attach(v_relation);
    perform "bemi".note_version(v_relation);
    perform set_config('bemi.reconciling', '', true);
  end loop;
  perform "bemi".attach_others(v_root);
end
$$;

-- It stays so though all tables are tracked, with the partitions and children that it has and gets, until track() names it.
create function "bemi".untrack(a_relation regclass) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  v_root regclass := coalesce(pg_partition_root(a_relation), a_relation);
  v_relation regclass;
begin
  if not (select pg_has_role(session_user, relowner, 'usage') from pg_class where oid = a_relation) then
    raise insufficient_privilege using
      message = format('Cannot untrack %s, as %I does not own it', a_relation, session_user),
      hint = 'Run this as the owner of the table.';
  end if;
  perform set_config('bemi.reconciling', 'on', true);
  for v_relation in select "bemi".with_descendants(v_root) loop
    perform "bemi".detach(v_relation);
    delete from "bemi".baselines where relation = v_relation;
    delete from "bemi".tracked_tables where relation = v_relation;
    insert into "bemi".untracked (relation, root) values (v_relation, v_root) on conflict do nothing;
  end loop;
  perform set_config('bemi.reconciling', '', true);
  perform "bemi".attach_others(v_root);
end
$$;
