-- Keeping up with DDL: event triggers that follow what a command can have touched, and never fail it.

-- The tables whose triggers or facts may have to change when relations or types did: the relations themselves, what has
-- columns of those types or of the relations' row types, and what inherits from any of them, or they from it.
create function "bemi".touched_by(a_relations oid[], a_types oid[] default '{}') returns oid[]
language sql stable set search_path = pg_catalog, pg_temp
as $$
  with recursive touched (class, id) as (
    (select 'pg_class'::regclass, unnest(a_relations) union all select 'pg_type'::regclass, unnest(a_types))
    union
    select n.class, n.id from touched t, lateral (
      select 'pg_type'::regclass as class, c.reltype as id from pg_class c where t.class = 'pg_class'::regclass and c.oid = t.id and c.reltype <> 0
      union all
      select d.classid::regclass, d.objid from pg_depend d
      where t.class = 'pg_type'::regclass and d.refclassid = t.class and d.refobjid = t.id
        and d.classid in ('pg_class'::regclass, 'pg_type'::regclass)
      union all
      select t.class, i.inhparent from pg_inherits i where t.class = 'pg_class'::regclass and i.inhrelid = t.id
      union all
      select t.class, i.inhrelid from pg_inherits i where t.class = 'pg_class'::regclass and i.inhparent = t.id
    ) as n
  )
  select coalesce(array_agg(id), '{}') from touched where class = 'pg_class'::regclass
$$;

-- The tables that are captured by row, or not, for something that is no longer so after a change of these: what they
-- can be written through has changed, or what could be written through them. See needs_row_level().
create function "bemi".of_other_level(a_relations oid[]) returns setof regclass
language sql stable set search_path = pg_catalog, pg_temp
as $$
  with recursive above (relation) as (
    select unnest(a_relations)
    union
    select n.relation from above a, lateral (
      select c.confrelid as relation from pg_constraint c where c.conrelid = a.relation and c.contype = 'f'
      union all
      select i.inhparent from pg_inherits i where i.inhrelid = a.relation
      union all
      select i.inhrelid from pg_inherits i where i.inhparent = a.relation
    ) as n
  ), candidates as materialized (
    select t.relation, t.row_level, t.capture from "bemi".tracked_tables t
    where t.row_level or t.relation in (select a.relation from above a)
  )
  select c.relation from candidates c where c.row_level <> "bemi".needs_row_level(c.relation, c.capture)
$$;

-- Brings the triggers in line with today's tables: new partitions and children, tables that appeared while all are
-- tracked, triggers that were dropped, tables that came to need row-level capture. Looks at what a change of these
-- relations and types can have touched, and at tables that are not tracked yet; at everything if they are NULL. Returns
-- what it changed.
create function "bemi".follow(a_relations oid[], a_types oid[]) returns setof regclass
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '2s'
as $$
declare
  v_relation regclass;
  v_touched oid[] := case when a_relations is not null then "bemi".touched_by(a_relations, a_types) end;
  v_is_noted boolean := a_relations is not null or not (select event_trigger from "bemi".settings);
begin
  perform set_config('bemi.reconciling', 'on', true);
  for v_relation in
    delete from "bemi".tracked_tables t
    where not exists (select from pg_class c where c.oid = t.relation)
    returning case when t.root <> t.relation then t.root end
  loop
    perform "bemi".add_break(v_relation, 'a partition was dropped');
  end loop;
  perform "bemi".forget_dropped();
  delete from "bemi".untracked u where not exists (select from pg_class c where c.oid = u.relation);
  -- What came to be part of it stays untracked when it is no longer part.
  insert into "bemi".untracked (relation, root) select l.relation, l.root from "bemi".left_out() as l on conflict do nothing;
  -- A detached partition is a table of its own.
  for v_relation in
    select distinct t.root from "bemi".tracked_tables t join pg_class c on c.oid = t.relation
    where t.root <> t.relation and pg_partition_root(t.relation) is distinct from t.root
  loop
    perform "bemi".add_break(v_relation, 'a partition was detached');
    update "bemi".tracked_tables t set root = t.relation, tracked_at = '-infinity', is_pending = true
    from pg_class c
    where c.oid = t.relation and t.root = v_relation and t.root <> t.relation and pg_partition_root(t.relation) is distinct from t.root;
  end loop;
  -- One that was attached is no longer.
  for v_relation in
    select distinct pg_partition_root(t.relation) from "bemi".tracked_tables t join pg_class c on c.oid = t.relation
    where t.root = t.relation and c.relispartition
  loop
    perform "bemi".add_break(v_relation, 'a partition was attached');
    update "bemi".tracked_tables t set root = v_relation, is_pending = true
    from pg_class c
    where c.oid = t.relation and t.root = t.relation and c.relispartition and pg_partition_root(t.relation) = v_relation;
  end loop;
  for v_relation in
    with recursive left_out as materialized (
      select l.relation::oid from "bemi".left_out() as l
    ), unknown as materialized (
      select c.oid from pg_class c
      -- All but the catalog's own: there are few.
      where c.relkind in ('r', 'p') and c.oid >= 16384
        and not exists (select from "bemi".tracked_tables known where known.relation = c.oid)
    ), missing (relation, depth) as (
      select a.relation::oid, 0 from "bemi".all_tables(array(select u.oid from unknown u)) as a (relation)
      where (select track_all from "bemi".settings)
      union
      select i.inhrelid, 1 from "bemi".tracked_tables t join pg_inherits i on i.inhparent = t.relation
      where not exists (select from "bemi".tracked_tables known where known.relation = i.inhrelid)
        and i.inhrelid not in (select l.relation from left_out l)
      union
      select i.inhrelid, m.depth + 1 from missing m join pg_inherits i on i.inhparent = m.relation
      where i.inhrelid not in (select l.relation from left_out l)
    )
    select m.relation from missing m
    where not exists (select from "bemi".tracked_tables known where known.relation = m.relation)
    group by m.relation
    -- Parents first, whose options their children take over.
    order by max(m.depth), m.relation
  loop
    insert into "bemi".tracked_tables (relation, root, schema, name, former_replica_identity, capture, ignored, masked, is_strict, is_polled, is_pending)
    select c.oid, case when c.relispartition then pg_partition_root(c.oid) else c.oid::regclass end,
      n.nspname, c.relname, c.relreplident, case when c.relispartition then parent.capture
        else "bemi".possible_capture(c.oid, coalesce(parent.capture, (select s.capture from "bemi".settings s))) end,
      coalesce(parent.ignored, '{}'), coalesce(parent.masked, '{}'), coalesce(parent.is_strict, false),
      coalesce(parent.is_polled, false), true
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    left join pg_inherits i on i.inhrelid = c.oid
    left join "bemi".tracked_tables parent on parent.relation = i.inhparent
    where c.oid = v_relation
    on conflict do nothing;
    delete from "bemi".untracked where relation = v_relation;
    perform "bemi".add_break(t.root, 'a partition was attached with its rows')
    from "bemi".tracked_tables t where t.relation = v_relation and t.root <> v_relation and not "bemi".is_blank(v_relation);
    update "bemi".tracked_tables t
    set masked_numbers = coalesce((select array_agg(a.attnum) from pg_attribute a
      where a.attrelid = t.relation and a.attname = any (t.masked) and a.attnum > 0), '{}')
    where t.relation = v_relation and t.masked <> '{}';
  end loop;
  for v_relation in
    select t.relation from "bemi".tracked_tables t
    where v_touched is null or t.is_pending or t.relation = any (v_touched)
      or t.relation in (select o.relation from "bemi".of_other_level(v_touched) as o (relation))
    order by t.relation = t.root desc, t.relation
  loop
    -- One table that cannot be tracked must not keep the others from it.
    begin
      if "bemi".attach(v_relation) then
        -- With its version noted.
        return next v_relation;
        continue;
      end if;
    exception when object_not_in_prerequisite_state or feature_not_supported or insufficient_privilege
      or lock_not_available or deadlock_detected then
      update "bemi".tracked_tables set is_pending = true where relation = v_relation;
      raise warning 'bemi: % could not be tracked: %', v_relation, sqlerrm;
    end;
    if v_is_noted then
      perform "bemi".note_version(v_relation);
    end if;
  end loop;
  perform set_config('bemi.reconciling', '', true);
end
$$;

create function "bemi".reconcile() returns setof regclass
language sql security definer set search_path = pg_catalog, pg_temp
as $$
  select "bemi".follow(null, '{}')
$$;

-- Never fails the DDL that it watches: what it could not do is said as a warning, and reconcile() does it later.
create function "bemi".on_ddl() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  v_relations oid[];
  v_types oid[];
begin
  if current_setting('bemi.reconciling', true) = 'on' then
    return;
  end if;
  begin
    -- An application may make temporary tables all day.
    select array_agg(c.objid) filter (where c.classid = 'pg_class'::regclass)
        || array_agg(t.tgrelid) filter (where t.oid is not null) || array_agg(r.oid) filter (where r.oid is not null),
      array_agg(c.objid) filter (where c.classid = 'pg_type'::regclass) || array_agg(y.oid) filter (where y.oid is not null)
    into v_relations, v_types
    from pg_event_trigger_ddl_commands() as c
      left join pg_trigger t on c.classid = 'pg_trigger'::regclass and t.oid = c.objid
      -- The name of a schema is part of its tables' names, and of those of its types.
      left join pg_class r on c.classid = 'pg_namespace'::regclass and r.relnamespace = c.objid
      left join pg_type y on c.classid = 'pg_namespace'::regclass and y.typnamespace = c.objid
    where c.schema_name is distinct from 'pg_temp';
    if v_relations is null and v_types is null then
      return;
    end if;
    perform "bemi".follow(coalesce(v_relations, '{}'), coalesce(v_types, '{}'));
  exception when others then
    raise warning 'bemi: tracking could not follow this command (SQLSTATE %)', sqlstate
      using hint = 'Run: select "bemi".reconcile()';
  end;
end
$$;

-- The same after a DROP, whose objects ddl_command_end says nothing of; what ALTER drops is followed at its end.
create function "bemi".on_drop() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  v_relations oid[];
begin
  if tg_tag not like 'DROP %' or current_setting('bemi.reconciling', true) = 'on' then
    return;
  end if;
  begin
    select array_agg(distinct case when d.classid = 'pg_class'::regclass then d.objid
      else to_regclass(format('%I.%I', d.address_names[1], d.address_names[2]))::oid end)
    into v_relations
    from pg_event_trigger_dropped_objects() as d
    where not d.is_temporary and (d.object_type in ('trigger', 'table constraint')
      or d.object_type ~ '^(table|foreign table|composite type)( column)?$');
    if v_relations is null then
      return;
    end if;
    perform "bemi".follow(array_remove(v_relations, null), '{}');
  exception when others then
    raise warning 'bemi: tracking could not follow this command (SQLSTATE %)', sqlstate
      using hint = 'Run: select "bemi".reconcile()';
  end;
end
$$;

-- What a column's values are computed from anew leaves no trace in the catalog where its type stays what it was.
create function "bemi".on_rewrite() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  v_relation regclass := pg_event_trigger_table_rewrite_oid();
  v_root regclass := coalesce(pg_partition_root(v_relation), v_relation);
begin
  -- For a column's type: AT_REWRITE_COLUMN_REWRITE in PostgreSQL's event_trigger.h. Another type is noticed by itself.
  if pg_event_trigger_table_rewrite_reason() & 4 <> 0
    and exists (select from "bemi".tracked_tables where relation = v_relation) and not "bemi".is_blank(v_relation)
    and not exists (select from "bemi".tables t join pg_attribute a on a.attrelid = t.relation, lateral (
        select c.type from "bemi".table_columns c
        where c.table_id = t.id and c.number = a.attnum order by c.named_at desc limit 1) as known
      where t.relation = v_root and known.type <> format_type(a.atttypid, a.atttypmod))
  then
    perform "bemi".add_break(v_root, 'a column''s values were computed anew');
  end if;
exception when others then
  raise warning 'bemi: tracking could not follow this command (SQLSTATE %)', sqlstate;
end
$$;

-- Casts to json of types of one's own run wherever a row becomes JSON: in trigger capture with the rights of the log's
-- owner, often a superuser's. So who wrote one has to be as trusted.
create function "bemi".foreign_casts() returns table (cast_id oid, source regtype, written_by name)
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select c.oid, c.castsource::regtype, r.rolname
  from pg_cast c join pg_proc p on p.oid = c.castfunc join pg_roles r on r.oid = p.proowner
  where c.castsource >= 16384 and c.casttarget = 'json'::regtype and not r.rolsuper
    and r.oid <> (select relowner from pg_class where oid = '"bemi".changes'::regclass)
$$;

-- The one command that is refused: to look for such casts at each write would leave a moment in between.
create function "bemi".refuse_foreign_cast() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  v_cast record;
begin
  select f.source, f.written_by into v_cast
  from "bemi".foreign_casts() f join pg_event_trigger_ddl_commands() d on d.objid = f.cast_id and d.classid = 'pg_cast'::regclass;
  if found then
    raise insufficient_privilege using
      message = format('A cast of %s to json by %I is refused: tracking would run it with the rights of the log''s owner', v_cast.source, v_cast.written_by),
      hint = 'Let a superuser own the function first: alter function ... owner to ...';
  end if;
end
$$;

-- Follows DDL by itself from now on, where this role may create an event trigger. Returns whether it is so.
create function "bemi".follow_ddl() returns boolean
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  v_trigger record;
  v_name name;
  v_follows boolean := true;
begin
  begin
    for v_trigger in
      select * from (values
        ('', 'ddl_command_end', '"bemi".on_ddl()'::regprocedure, array['CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'ALTER TABLE',
          'ALTER TYPE', 'CREATE TRIGGER', 'CREATE FOREIGN TABLE', 'CREATE SCHEMA', 'ALTER SCHEMA']),
        ('_drop', 'sql_drop', '"bemi".on_drop()'::regprocedure, null),
        ('_rewrite', 'table_rewrite', '"bemi".on_rewrite()'::regprocedure, null),
        ('_cast', 'ddl_command_end', '"bemi".refuse_foreign_cast()'::regprocedure, array['CREATE CAST'])
      ) as t (suffix, event, function, tags)
    loop
      select evtname into v_name from pg_event_trigger where evtfoid = v_trigger.function;
      if not found then
        v_name := 'bemi_reconcile_' || '"bemi".changes'::regclass::oid || v_trigger.suffix;
        execute format('create event trigger %I on %s %s execute function %s', v_name, v_trigger.event,
          (select 'when tag in (' || string_agg(quote_literal(tag), ', ') || ')' from unnest(v_trigger.tags) as tag), v_trigger.function);
      end if;
      -- ALWAYS: session_replication_role = replica must not switch it off.
      execute format('alter event trigger %I enable always', v_name);
    end loop;
  exception when insufficient_privilege then
    v_follows := false;
    raise notice 'bemi: this role may not create event triggers: run reconcile() after changes of the schema';
  end;
  update "bemi".settings set event_trigger = v_follows;
  if "bemi".follows_ddl() <> v_follows then
    execute 'create or replace function "bemi".follows_ddl() returns boolean language sql stable return ' || v_follows;
  end if;
  return v_follows;
end
$$;

select "bemi".follow_ddl();
