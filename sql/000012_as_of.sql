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
set datestyle = 'ISO, MDY' set intervalstyle = 'postgres' set extra_float_digits = 1
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
      when a.attgenerated = 's' then format('case when bemi_images.image ? %L then bemi_row.%I else (%s) end', a.attname, a.attname, pg_get_expr(d.adbin, d.adrelid))
      -- It is an object in jsonb, and jsonb_populate_record would hand the object's text to it.
      when t.typname = 'hstore' then format('(select %I.hstore(array_agg(e.key), array_agg(e.value)) from jsonb_each_text(nullif(bemi_images.image -> %L, ''null'')) as e)',
        n.nspname, a.attname)
      else format('bemi_row.%I', a.attname) end, ', ' order by a.attnum)
  into v_columns
  from pg_attribute a join pg_type t on t.oid = a.atttypid join pg_namespace n on n.oid = t.typnamespace
    left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
  where a.attrelid = a_relation and a.attnum > 0 and not a.attisdropped;
  return format('select %s from (%s) as bemi_images, lateral jsonb_populate_record(null::%s, bemi_images.image) as bemi_row',
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

-- One row at a time by what its last change until then says, which is two queries whose plans are kept. Only where
-- nothing but that change matters: there was a baseline by then, the table has had one name, nothing truncated it, and
-- the row's key stayed its own. Elsewhere is_known is false, and images_as_of() has to tell.
create type "bemi".last_image as (is_known boolean, image jsonb, capture text, is_reshaped boolean);

create function "bemi".last_image(a_relation regclass, a_key text, a_time timestamptz) returns "bemi".last_image
language plpgsql stable set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan
as $$
declare
  v_table record;
  v_last record;
  v_found "bemi".last_image;
begin
  select i.id, t.schema, t.name, t.tracked_at, t.capture, b.started_at,
    (select max(k.broken_at) from "bemi".breaks k where k.table_id = i.id and k.broken_at <= a_time) as broken_at,
    (select max(greatest(c.named_at, c.dropped_at)) > min(c.named_at) from "bemi".table_columns c where c.table_id = i.id) as is_reshaped
  into v_table
  from "bemi".tracked_tables t join "bemi".tables i on i.relation = t.relation join "bemi".baselines b on b.relation = t.relation
  where t.relation = a_relation and t.root = a_relation and t.key_columns <> '{}' and t.tracked_at <= a_time
    and b.skipped_count = 0 and b.started_at >= t.tracked_at and b.finished_at <= a_time
    -- Its one name, which no other table has had.
    and a_relation::text = format('%I.%I', t.schema, t.name)
    and (select count(*) = 1 and bool_and(n.table_id = i.id and n.schema = t.schema and n.name = t.name)
      from "bemi".table_names n where n.table_id = i.id or n.schema = t.schema and n.name = t.name)
    -- One epoch, so that LSNs are an order.
    and (select min(s.system_identifier) = max(s.system_identifier) and min(s.timeline) = max(s.timeline) from "bemi".sources s)
    -- See breaks_of().
    and not exists (select from "bemi".set_aside)
    and (t.capture = 'trigger' or not exists (select from "bemi".gaps g where g.detected_at >= t.tracked_at))
    and to_regclass('"bemi".changes_p' || to_char(t.tracked_at at time zone 'UTC', 'YYYYMM')) is not null
    and not exists (select from "bemi".tracked_tables p where p.root = a_relation and p.relation <> a_relation
      and not exists (select from pg_class c where c.oid = p.relation));
  v_found.is_known := false;
  if v_table.id is null or v_table.broken_at > v_table.started_at then
    return v_found;
  end if;
  select l.*, exists (select from "bemi".changes m
      where m."table" = v_table.name and m.schema = v_table.schema and m.committed_at between v_table.tracked_at and a_time
        and m.primary_key is null and m.before = '{}' and m.after = '{}')
    or exists (select from "bemi".changes m
      where m."table" = v_table.name and m.schema = v_table.schema and m.committed_at between v_table.tracked_at and a_time
        and hashtextextended(m.former_primary_key, 0) = hashtextextended(a_key, 0) and m.former_primary_key = a_key) as is_more
  into v_last
  from (values (1)) as one left join lateral (
    select case when c.operation <> 'DELETE' then c.after end as image, c.committed_at,
      bool_or(c.former_primary_key is not null) over () as is_moved
    from "bemi".changes c
    where c."table" = v_table.name and c.schema = v_table.schema and c.committed_at between v_table.tracked_at and a_time
      and c.committed_at > coalesce(v_table.broken_at, '-infinity')
      and hashtextextended(c.primary_key, 0) = hashtextextended(a_key, 0) and c.primary_key = a_key
    order by c.commit_lsn desc, c.transaction_index desc limit 1
  ) as l on true;
  if v_last.is_more or v_last.is_moved then
    return v_found;
  end if;
  return row(true, case when v_table.is_reshaped and v_last.image is not null then "bemi".shape_image(v_table.id, v_last.image, v_last.committed_at) else v_last.image end,
    v_table.capture, v_table.is_reshaped);
end
$$;

-- The rows of a table, or the one with this key, as they were at a time: select * from as_of(null::todos, '2026-11-01 12:00').
create function "bemi".as_of(a_row anyelement, a_time timestamptz, a_key text default null) returns setof anyelement
language plpgsql stable set search_path = pg_catalog, pg_temp set datestyle = 'ISO, MDY' set intervalstyle = 'postgres' set extra_float_digits = 1
as $$
declare
  v_relation regclass := "bemi".table_of_row(a_row);
  v_last "bemi".last_image;
begin
  if a_key is not null and a_row is null then
    v_last := "bemi".last_image(v_relation, a_key, a_time);
    -- Of columns and of a worker's lag there may be something to be said.
    if v_last.is_known and not v_last.is_reshaped and v_last.capture = 'trigger' and "bemi".is_plain(v_relation) then
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
language plpgsql stable set search_path = pg_catalog, pg_temp set datestyle = 'ISO, MDY' set intervalstyle = 'postgres' set extra_float_digits = 1
as $$
begin
  return query execute "bemi".rows_query("bemi".table_of_row(a_row), "bemi".moment_of(a_change, a_edge), a_key);
end
$$;

-- One row's image at a time, in today's columns; NULL where there was none.
create function "bemi".image_as_of(a_relation regclass, a_key text, a_time timestamptz) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  v_last "bemi".last_image := "bemi".last_image(a_relation, a_key, a_time);
begin
  if v_last.is_known then
    return v_last.image;
  end if;
  return (select image from "bemi".images_as_of(a_relation, "bemi".moment_at(a_time), a_key));
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
