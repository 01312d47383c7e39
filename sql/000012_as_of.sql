-- Today's rows of what was: tables, or one row, as of a time or a transaction.

-- Says of the rows of a table at a moment what they do not: columns that came or went since, what a worker has yet to read.
create function "bemi".remark_as_of(a_relation regclass, a_moment "bemi".moment) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan
as $$
declare
  v_names text;
  v_last timestamptz;
  v_lag record;
begin
  select string_agg(format('%I %s', c.name, case when c.dropped_at > a_moment.at then 'was dropped' else 'was added' end), ', ' order by c.number) into v_names
  from "bemi".table_columns c join "bemi".tables t on t.id = c.table_id
  where t.relation = a_relation and (c.dropped_at > a_moment.at and c.named_at <= a_moment.at
    or c.dropped_at is null and c.named_at > a_moment.at
      and not exists (select from "bemi".table_columns f where f.table_id = c.table_id and f.number = c.number and f.named_at < c.named_at));
  if v_names is not null then
    raise notice 'bemi: columns of % since: %', a_relation, v_names;
  end if;
  if a_moment.epoch is null and (select capture from "bemi".tracked_tables where relation = a_relation) = 'wal' and not pg_is_in_recovery() then
    v_last := "bemi".last_from_wal();
    if a_moment.at > coalesce(v_last, '-infinity') then
      select * into v_lag from "bemi".wal_lag();
      if v_lag.bytes is null then
        raise warning 'bemi: nothing reads the WAL of this database into its log, for there is no slot: what was committed after % may be missing', coalesce(v_last::text, 'tracking began')
          using hint = 'Run bemi worker, and see bemi doctor.';
      elsif v_lag.bytes > (case when v_lag.is_active then 1048576 else 0 end) then
        raise warning 'bemi: the worker has % bytes of WAL yet to read: what was committed after % may be missing', v_lag.bytes,
          coalesce(v_last, (select tracked_at from "bemi".tracked_tables where relation = a_relation))
          using hint = 'Run bemi worker, or bemi-poll --once.';
      end if;
    end if;
  end if;
end
$$;

-- Whether a row is its image put into its type, and nothing besides: see rows_query().
create function "bemi".is_plain(a_relation oid) returns boolean
language sql stable
return not exists (select from pg_attribute a where a.attrelid = a_relation and a.attnum > 0 and not a.attisdropped
  and (a.attgenerated = 's' or a.atttypid in (select t.oid from pg_type t where t.typname = 'hstore')));

-- A row of today's type for each row as it was, as a query. Dropped columns are left out, added ones have the value that
-- they were added with, masked ones are NULL; a notice says so.
create function "bemi".rows_query(a_relation regclass, a_moment "bemi".moment, a_key text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  v_ground "bemi".ground := "bemi".ground_of(a_relation, a_moment, a_key);
  v_images text := case when a_key is null or v_ground.has_moves then "bemi".images_query(a_relation, a_moment, v_ground, a_key)
    else format('select image from "bemi".key_image(%L, %L, %L, %L) where image is not null', a_relation::oid, a_moment, v_ground, a_key) end;
  v_columns text;
begin
  perform "bemi".remark_as_of(a_relation, a_moment);
  if "bemi".is_plain(a_relation) then
    -- The row is made once: each of its columns would make it again, and a function in FROM a table of it.
    select string_agg(format('(bemi_made.bemi_row).%I', a.attname), ', ' order by a.attnum) into v_columns
    from pg_attribute a where a.attrelid = a_relation and a.attnum > 0 and not a.attisdropped;
    return format('select %s from (select jsonb_populate_record(null::%s, bemi_images.image) as bemi_row from (%s) as bemi_images offset 0) as bemi_made',
      v_columns, a_relation, v_images);
  end if;
  select string_agg(case
      -- Before PostgreSQL 18 decoding leaves generated columns out.
      when a.attgenerated = 's' then format('case when bemi_images.bemi_image ? %L then bemi_row.%I else (%s) end', a.attname, a.attname, pg_get_expr(d.adbin, d.adrelid))
      -- It is an object in jsonb, and jsonb_populate_record would hand the object's text to it.
      when t.typname = 'hstore' then format('(select %I.hstore(array_agg(e.key), array_agg(e.value)) from jsonb_each_text(nullif(bemi_images.bemi_image -> %L, ''null'')) as e)',
        n.nspname, a.attname)
      else format('bemi_row.%I', a.attname) end, ', ' order by a.attnum)
  into v_columns
  from pg_attribute a join pg_type t on t.oid = a.atttypid join pg_namespace n on n.oid = t.typnamespace
    left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
  where a.attrelid = a_relation and a.attnum > 0 and not a.attisdropped;
  -- A generated column's expression names the others as they are called, and one may be called image.
  return format('select %s from (select image as bemi_image from (%s) as i) as bemi_images, lateral jsonb_populate_record(null::%s, bemi_images.bemi_image) as bemi_row',
    v_columns, v_images, a_relation);
end
$$;

-- The table whose row type this is.
create function "bemi".table_of_row(a_row anyelement) returns regclass
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  v_relation regclass := (select typrelid from pg_type where oid = pg_typeof(a_row)::oid and typrelid <> 0);
begin
  if v_relation is null then
    raise wrong_object_type using message = format('%s is no table''s type', pg_typeof(a_row)), hint = 'Write null::todos, with the table''s name.';
  end if;
  return v_relation;
end
$$;

-- Tables of which one row is what its last change says: there was a baseline by then, the table has had one name and one
-- shape, its key is one, and all that was committed is in the log. Kept, since finding it out takes longer than the read.
create table "bemi".plain_reads (
  relation regclass primary key,
  schema text not null,
  name text not null,
  -- As long as the catalog agrees, for nothing may notice a rename, a column or a month that was dropped by hand.
  namespace oid not null,
  column_count smallint not null,
  oldest_month regclass not null,
  capture text not null,
  tracked_at timestamptz not null,
  known_from timestamptz not null
);

-- Of the table that the row tells of, since each of a thousand that come to be tracked must not look into all of them.
create function "bemi".end_plain_reads() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  v_row jsonb := coalesce(to_jsonb(old), '{}') || coalesce(jsonb_strip_nulls(to_jsonb(new)), '{}');
begin
  insert into "bemi".plain_read_ends (relation)
  select coalesce(v_row ->> 'root', v_row ->> 'relation',
    (select t.relation::text from "bemi".tables t where t.id = (v_row ->> 'table_id')::integer))::regclass;
  return null;
exception when others then
  insert into "bemi".plain_read_ends (relation) values (null);
  return null;
end
$$;

-- Runs when what ended them commits. One statement takes away the ends that it sees and looks at what they stood for: what
-- others have yet to commit comes with an end of its own. One at a time, and with a snapshot that is taken after the
-- last one's commit: an older one would bring back what that found to have ended.
create function "bemi".find_plain_reads() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('transaction_isolation') <> 'read committed' or not exists (select from "bemi".plain_read_ends)
    or not pg_try_advisory_xact_lock(hashtextextended('bemi.plain_reads', '"bemi".plain_reads'::regclass::oid::bigint))
  then
    return null;
  end if;
  with found as materialized (
    select t.relation, t.schema, t.name, c.relnamespace, c.relnatts,
      to_regclass('"bemi".changes_p' || to_char(t.tracked_at at time zone 'UTC', 'YYYYMM')) as oldest_month, t.capture, t.tracked_at, b.finished_at
    from "bemi".tracked_tables t join "bemi".tables i on i.relation = t.relation join "bemi".baselines b on b.relation = t.relation
      join pg_class c on c.oid = t.relation join pg_namespace n on n.oid = c.relnamespace
    where (t.relation in (select e.relation from "bemi".plain_read_ends e) or exists (select from "bemi".plain_read_ends e where e.relation is null))
      and t.relation = t.root and t.key_columns <> '{}' and c.relname = t.name and n.nspname = t.schema and "bemi".is_plain(c.oid)
      and not exists (select from "bemi".tracked_tables p where p.root = t.relation and p.relation <> t.relation)
      and b.skipped_count = 0 and b.started_at >= t.tracked_at and b.finished_at >= t.tracked_at
      and not exists (select from "bemi".breaks k where k.table_id = i.id and k.broken_at > b.started_at)
      -- Its one name, which no other table has had, and one shape.
      and (select count(*) = 1 and bool_and(o.table_id = i.id and o.schema = t.schema and o.name = t.name)
        from "bemi".table_names o where o.table_id = i.id or o.schema = t.schema and o.name = t.name)
      and (select max(greatest(o.named_at, o.dropped_at)) = min(o.named_at) from "bemi".table_columns o where o.table_id = i.id)
      -- One epoch, so that LSNs are an order.
      and (select min(e.epoch) = max(e.epoch) from "bemi".epochs e)
      -- See breaks_of().
      and not exists (select from "bemi".set_aside)
      and (t.capture = 'trigger' and t.left_wal_at is null or not exists (select from "bemi".gaps g where g.detected_at >= t.tracked_at))
  ), ended as (
    delete from "bemi".plain_read_ends
  ), gone as (
    delete from "bemi".plain_reads p
    where (p.relation in (select e.relation from "bemi".plain_read_ends e) or exists (select from "bemi".plain_read_ends e where e.relation is null))
      and not exists (select from found f where f.relation = p.relation)
  )
  insert into "bemi".plain_reads as p
  select f.* from found f where f.oldest_month is not null
  on conflict (relation) do update set (schema, name, namespace, column_count, oldest_month, capture, tracked_at, known_from)
    = row(excluded.schema, excluded.name, excluded.namespace, excluded.column_count, excluded.oldest_month, excluded.capture,
      excluded.tracked_at, excluded.known_from);
  return null;
exception when others then
  -- Whatever it is, reads are slower until the next time, and whoever commits here has no part in it.
  return null;
end
$$;

create constraint trigger found_at_commit after insert on "bemi".plain_read_ends deferrable initially deferred
  for each row execute function "bemi".find_plain_reads();
alter table "bemi".plain_read_ends enable always trigger found_at_commit;

do $$
declare
  v_relation regclass;
begin
  foreach v_relation in array array['"bemi".sources', '"bemi".tracked_tables', '"bemi".tables', '"bemi".table_names', '"bemi".table_columns',
    '"bemi".breaks', '"bemi".baselines', '"bemi".gaps', '"bemi".set_aside']::regclass[]
  loop
    execute format('create trigger ends_plain_reads after insert or update or delete on %s for each row execute function "bemi".end_plain_reads()', v_relation);
    execute format('create trigger ends_all_plain_reads after truncate on %s for each statement execute function "bemi".end_plain_reads()', v_relation);
    execute format('alter table %s enable always trigger ends_plain_reads', v_relation);
    execute format('alter table %s enable always trigger ends_all_plain_reads', v_relation);
  end loop;
end
$$;

-- What the last change of a row until a time says of it, where that is all there is to know; else is_known is false, and
-- images_as_of() has to tell. One query, whose plan is kept.
create type "bemi".last_image as (is_known boolean, image jsonb);

create function "bemi".last_image(a_relation oid, a_key text, a_time timestamptz) returns "bemi".last_image
language plpgsql stable set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan
as $$
declare
  v_last record;
begin
  select p.capture, l.image, l.is_moved, exists (select from "bemi".changes m
      where m."table" = p.name and m.schema = p.schema and m.committed_at between p.tracked_at and a_time
        and m.primary_key is null and m.before = '{}' and m.after = '{}')
    or exists (select from "bemi".changes m
      where m."table" = p.name and m.schema = p.schema and m.committed_at between p.tracked_at and a_time
        and hashtextextended(m.former_primary_key, 0) = hashtextextended(a_key, 0) and m.former_primary_key = a_key) as is_more
  into v_last
  from "bemi".plain_reads p
    join pg_class c on c.oid = p.relation and c.relname = p.name and c.relnamespace = p.namespace and c.relnatts = p.column_count
    left join lateral (
      select case when c.operation <> 'DELETE' then c.after end as image, bool_or(c.former_primary_key is not null) over () as is_moved
      from "bemi".changes c
      where c."table" = p.name and c.schema = p.schema and c.committed_at between p.tracked_at and a_time
        and hashtextextended(c.primary_key, 0) = hashtextextended(a_key, 0) and c.primary_key = a_key
      order by c.commit_lsn desc, c.transaction_index desc limit 1
    ) as l on true
  where p.relation = a_relation and p.known_from <= a_time
    and not exists (select from "bemi".plain_read_ends)
    and pg_partition_root(p.oldest_month) = '"bemi".changes'::regclass;
  if v_last.capture is null or v_last.is_more or v_last.is_moved
    -- Of a worker's lag there may be something to be said.
    or v_last.capture = 'wal' and coalesce("bemi".last_from_wal() < a_time, true)
  then
    return row(false, null)::"bemi".last_image;
  end if;
  return row(true, v_last.image)::"bemi".last_image;
end
$$;

-- The rows of a table, or the one with this key, as they were at a time: select * from as_of(null::todos, '2026-11-01 12:00').
-- The settings are those of images_as_of(), for all that is called from here.
create function "bemi".as_of(a_row anyelement, a_time timestamptz, a_key text default null) returns setof anyelement
language plpgsql stable set search_path = pg_catalog, pg_temp
  set timezone = 'UTC' set datestyle = 'ISO, MDY' set intervalstyle = 'postgres' set bytea_output = 'hex'
  set extra_float_digits = 1 set quote_all_identifiers = off
as $$
declare
  v_relation regclass := "bemi".table_of_row(a_row);
  v_last "bemi".last_image;
begin
  if a_key like '[%' and cardinality("bemi".key_columns(v_relation)) > 1 then
    a_key := "bemi".spelled_key(a_key);
  end if;
  if a_time > clock_timestamp() + interval '1 minute' then
    raise invalid_parameter_value using message = format('%s is yet to come', a_time),
      hint = 'Rows are known as they were up to now, by the server''s clock.';
  end if;
  if a_key is not null and a_row is null then
    v_last := "bemi".last_image(v_relation, a_key, a_time);
    if v_last.is_known then
      if v_last.image is not null then
        return next jsonb_populate_record(a_row, v_last.image);
      end if;
      return;
    end if;
  end if;
  return query execute "bemi".rows_query(v_relation, "bemi".moment_at(a_time), a_key);
end
$$;

-- The same just before or just after a transaction, which is named by the id of one of its changes.
create function "bemi".as_of_change(a_row anyelement, a_change uuid, a_edge text default 'after', a_key text default null) returns setof anyelement
language plpgsql stable set search_path = pg_catalog, pg_temp
  set timezone = 'UTC' set datestyle = 'ISO, MDY' set intervalstyle = 'postgres' set bytea_output = 'hex'
  set extra_float_digits = 1 set quote_all_identifiers = off
as $$
declare
  v_relation regclass := "bemi".table_of_row(a_row);
begin
  if a_key like '[%' and cardinality("bemi".key_columns(v_relation)) > 1 then
    a_key := "bemi".spelled_key(a_key);
  end if;
  return query execute "bemi".rows_query(v_relation, "bemi".moment_of(a_change, a_edge, v_relation, a_key), a_key);
end
$$;

-- The past is read-only also where it stands in temporary tables, which a read-only transaction may write.
create function "bemi".refuse_past_write() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  raise read_only_sql_transaction using message = format('The past cannot be changed: %s on %I is refused', tg_op, tg_table_name);
end
$$;
