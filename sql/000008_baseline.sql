-- Baseline: the rows that are there when a table comes to be tracked, as SNAPSHOT changes, while the application works.
-- A chunk locks its rows FOR SHARE: who wrote one before has committed, and who writes one later waits for the chunk's
-- commit. So a SNAPSHOT stands where it belongs in the history of its key, in the log as in the WAL.

create table "bemi".baselines (
  relation regclass primary key,
  -- Of the last row that was written; NULL before the first.
  last_key text[],
  row_count bigint not null default 0,
  -- Rows that jsonb refuses.
  skipped_count bigint not null default 0,
  started_at timestamptz not null default clock_timestamp(),
  -- The transaction that put the last rows into the WAL: the log has them as of its commit.
  read_by xid8,
  finished_at timestamptz
);

-- A row's image, or NULL where jsonb refuses it.
create function "bemi".image_of(a_row anyelement) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  return to_jsonb(a_row);
exception when data_exception or program_limit_exceeded then
  return null;
end
$$;

-- Puts images into the WAL, for the worker: a context message of the operation SNAPSHOT, then a message for each row: a 2,
-- and a JSON array of the relation, the secret, the key and the image, each as text.
create function "bemi".emit_snapshots(a_relation oid, a_keys text[], a_images jsonb[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  v_secret text := (select secret from "bemi".seal);
begin
  perform "bemi".emit_message(a_relation, a_relation, 'SNAPSHOT', null, current_setting('bemi.context', true), null, null, v_secret);
  perform pg_logical_emit_message(true, '_bemi', convert_to('2' || json_build_array(a_relation, v_secret,
    "bemi".key_of(r.image, a_keys), r.image::text)::text, "bemi".message_encoding()))
  from unnest(a_images) as r (image);
end
$$;

-- Whoever may not see each row would take those that a policy hides for absent. And with the rights of the log's owner no
-- code of a table's owner may run: what makes a literal of a type asks the checks of domains within it.
create function "bemi".check_readable(a_relation regclass) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  if row_security_active(a_relation) then
    raise insufficient_privilege using message = format('Row level security hides rows of %s from %I', a_relation, current_user),
      hint = format('Let the log''s owner see all of them: alter table %s no force row level security, or alter role %I bypassrls.',
        a_relation, current_user);
  end if;
  if exists (
    with recursive parts (oid, is_within) as (
      select a.atttypid, false from pg_attribute a where a.attrelid = a_relation and a.attname = any ("bemi".key_columns(a_relation))
      union
      select d.oid, p.is_within or y.typtype <> 'd'
      from parts p join pg_type y on y.oid = p.oid, lateral (
        select y.typbasetype as oid where y.typtype = 'd'
        union all select y.typelem where y.typelem <> 0
        union all select r.rngsubtype from pg_range r where y.oid in (r.rngtypid, r.rngmultitypid)
        union all select a.atttypid from pg_attribute a where a.attrelid = y.typrelid and y.typtype = 'c' and a.attnum > 0 and not a.attisdropped
      ) as d
    )
    select from parts p join pg_type y on y.oid = p.oid where p.is_within and y.typtype = 'd' and y.oid >= 16384)
  then
    raise feature_not_supported using message = format('A type of the key of %s has a domain within it', a_relation),
      hint = 'Give the key a type without one: the checks of a domain would run with the rights of the log''s owner.';
  end if;
end
$$;

-- The next rows of a table with a key, in its order: after a key, and up to where there are at most so many. NULL as
-- the boundary if there are not even as many.
create function "bemi".next_chunk(a_relation regclass, a_after text[], a_limit integer, out condition text, out boundary text[])
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  v_keys text[] := "bemi".key_columns(a_relation);
  v_columns text := "bemi".key_list(v_keys);
begin
  condition := case when a_after is null then 'true'
    else format('(%s) > (%s)', v_columns, "bemi".key_literals(a_relation, v_keys, a_after)) end;
  -- concat() does without casts, which anybody may have made for a type of theirs.
  execute format('select array[%s] from %s as bemi_row where %s order by %s offset %s limit 1',
    (select string_agg(format('concat(bemi_row.%I)', k.name), ', ' order by k.n) from unnest(v_keys) with ordinality as k (name, n)),
    "bemi".own_rows(a_relation), condition, v_columns, greatest(a_limit, 1) - 1) into boundary;
  if boundary is not null then
    condition := format('%s and (%s) <= (%s)', condition, v_columns, "bemi".key_literals(a_relation, v_keys, boundary));
  end if;
end
$$;

create function "bemi".key_list(a_keys text[]) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select string_agg(format('bemi_row.%I', k.name), ', ' order by k.n) from unnest(a_keys) with ordinality as k (name, n)
$$;

-- A table without those that inherit from it, but with its partitions.
create function "bemi".own_rows(a_relation regclass) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select case relkind when 'p' then '' else 'only ' end || a_relation from pg_class where oid = a_relation
$$;

-- Records the next rows of a tracked table, at most so many, in the order of its key: returns how many, and NULL once
-- there are none left. A table without a key has no order to go by, and is recorded as a whole.
create function "bemi".baseline(a_relation regclass, a_limit integer) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp
  set timezone = 'UTC' set datestyle = 'ISO, MDY' set intervalstyle = 'postgres' set bytea_output = 'hex'
  set extra_float_digits = 1 set quote_all_identifiers = off set row_security = off
as $$
declare
  v_tracked "bemi".tracked_tables := (select t from "bemi".tracked_tables t where relation = a_relation and root = a_relation);
  v_baseline "bemi".baselines;
  v_keys text[] := "bemi".key_columns(a_relation);
  v_from text := 'from ' || "bemi".own_rows(a_relation) || ' as bemi_row';
  v_where text := 'true';
  v_boundary text[];
  v_image text := 'to_jsonb(bemi_row.*)';
  v_hidden text[];
  v_images jsonb[];
  v_frame "bemi".frame;
  v_skipped bigint;
begin
  if v_tracked is null then
    raise wrong_object_type using message = format('There is no baseline of %s, as it is not tracked', a_relation),
      hint = 'Track it first; a partition goes with its root.';
  end if;
  if not (select pg_has_role(session_user, relowner, 'usage') from pg_class where oid = a_relation) then
    raise insufficient_privilege using message = format('%I does not own %s', session_user, a_relation),
      hint = 'Run this as the owner of the table.';
  end if;
  perform "bemi".check_readable(a_relation);
  insert into "bemi".baselines (relation) values (a_relation) on conflict do nothing;
  select * into v_baseline from "bemi".baselines where relation = a_relation for update;
  if v_baseline.finished_at is not null then
    if not exists (select from "bemi".breaks_of(a_relation) as b where b.broken_at > v_baseline.started_at and b.broken_at < 'infinity') then
      return null;
    end if;
    -- What came after it is not all in the log: lost WAL, a change that was set aside, months past their retention.
    update "bemi".baselines set started_at = clock_timestamp(), read_by = null, finished_at = null, last_key = null,
      row_count = 0, skipped_count = 0
    where relation = a_relation returning * into v_baseline;
  elsif v_baseline.read_by is not null then
    update "bemi".baselines set finished_at = clock_timestamp() where relation = a_relation and read_by <> pg_current_xact_id();
    return null;
  end if;

  if v_keys <> '{}' then
    select c.condition, c.boundary into v_where, v_boundary from "bemi".next_chunk(a_relation, v_baseline.last_key, a_limit) as c;
  end if;
  for i in 1..2 loop
    begin
      execute format('select coalesce(array_agg(bemi_locked.bemi_image), ''{}'') from (select %s as bemi_image %s where %s %s for share) as bemi_locked',
        v_image, v_from, v_where, coalesce('order by ' || "bemi".key_list(v_keys), '')) into v_images;
      exit;
    exception when data_exception or program_limit_exceeded then
      -- One row by one, since some row is no jsonb.
      v_image := '"bemi".image_of(bemi_row.*)';
    end;
  end loop;
  v_skipped := cardinality(v_images);
  v_images := array(select image from unnest(v_images) with ordinality as u (image, n) where image is not null order by n);
  v_skipped := v_skipped - cardinality(v_images);
  if v_skipped > 0 then
    raise warning 'bemi: % rows of % are not in its baseline, as jsonb cannot hold them', v_skipped, a_relation;
  end if;

  -- Before PostgreSQL 18 decoding leaves generated columns out: a baseline that is decoded does so too.
  v_hidden := "bemi".masked_columns(a_relation, v_tracked.masked, v_tracked.masked_numbers)
    || case when v_tracked.capture = 'wal' and current_setting('server_version_num')::integer < 180000 then
      array(select attname::text from pg_attribute where attrelid = a_relation and attgenerated <> '' and not attisdropped)
      else '{}' end;
  if v_tracked.capture = 'wal' then
    perform "bemi".emit_snapshots(a_relation, v_keys, array(
      select image - v_hidden from unnest(v_images) with ordinality as u (image, n) order by n));
  else
    -- Opened now that the rows are locked: its LSN is past what anybody wrote of them before.
    v_frame := "bemi".open_frame(a_relation, null);
    insert into "bemi".changes (id, database, schema, "table", primary_key, operation, after,
      context, committed_at, queued_at, transaction_id, position, source_id, commit_lsn, transaction_index)
    select "bemi".change_id(v_frame.id_time), current_database(), v_frame.schema, v_frame.name,
      "bemi".key_of(image, v_keys), 'SNAPSHOT', image - v_hidden,
      v_frame.context, v_frame.written_at, v_frame.written_at, v_frame.transaction_id,
      (v_frame.lsn - '0/0'::pg_lsn)::bigint, v_frame.source_id, v_frame.lsn, nextval('"bemi".change_sequence')
    from unnest(v_images) as r (image);
  end if;
  update "bemi".baselines
  set last_key = coalesce(v_boundary, last_key), row_count = row_count + cardinality(v_images),
    skipped_count = skipped_count + v_skipped,
    read_by = case when v_boundary is null then pg_current_xact_id() end,
    -- What goes through the WAL is in the log as of its commit: the next call, which finds nothing, says that it is over.
    finished_at = case when v_boundary is null and v_tracked.capture <> 'wal' then clock_timestamp() end
  where relation = a_relation;
  return cardinality(v_images);
end
$$;

-- A type, of a domain what it is based on.
create function "bemi".plain_type(a_type oid, a_typmod integer) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  with recursive bases as (
    select a_type as type, a_typmod as typmod
    union all
    select y.typbasetype, y.typtypmod from bases b join pg_type y on y.oid = b.type where y.typtype = 'd'
  )
  select format_type(b.type, b.typmod) from bases b join pg_type y on y.oid = b.type where y.typtype <> 'd'
$$;

-- A key that was written as text, as literals of its columns' types: of a domain's base type, as a literal of the domain
-- would have its checks asked.
create function "bemi".key_literals(a_relation oid, a_columns text[], a_key text[]) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select string_agg(format('%L::%s', a_key[k.n], "bemi".plain_type(a.atttypid, a.atttypmod)), ', ' order by k.n)
  from unnest(a_columns) with ordinality as k (name, n) join pg_attribute a on a.attrelid = a_relation and a.attname = k.name
$$;
