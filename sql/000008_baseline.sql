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

-- Records the next rows of a tracked table, at most so many, in the order of its key: returns how many, and NULL once
-- there are none left. A table without a key has no order to go by, and is recorded as a whole.
create function "bemi".baseline(a_relation regclass, a_limit integer) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp
set datestyle = 'ISO, MDY' set intervalstyle = 'postgres' set extra_float_digits = 1
as $$
declare
  v_tracked "bemi".tracked_tables := (select t from "bemi".tracked_tables t where relation = a_relation and root = a_relation);
  v_baseline "bemi".baselines;
  v_keys text[] := "bemi".key_columns(a_relation);
  v_columns text;
  v_from text;
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
  insert into "bemi".baselines (relation) values (a_relation) on conflict do nothing;
  select * into v_baseline from "bemi".baselines where relation = a_relation for update;
  if v_baseline.finished_at is not null then
    if not exists (select from "bemi".breaks_of(a_relation) as b where b.broken_at > v_baseline.started_at and b.broken_at < 'infinity') then
      return null;
    end if;
    -- What came after it is not all in the log: lost WAL, a change that was set aside, months past their retention.
    update "bemi".baselines set started_at = clock_timestamp(), finished_at = null, last_key = null, row_count = 0, skipped_count = 0
    where relation = a_relation returning * into v_baseline;
  end if;

  select format('from %s%s as bemi_row', case c.relkind when 'p' then '' else 'only ' end, a_relation) into v_from
  from pg_class c where c.oid = a_relation;
  if v_keys <> '{}' then
    select string_agg(format('bemi_row.%I', k.name), ', ' order by k.n) into v_columns
    from unnest(v_keys) with ordinality as k (name, n);
    if v_baseline.last_key is not null then
      v_where := format('(%s) > (%s)', v_columns, "bemi".key_literals(a_relation, v_keys, v_baseline.last_key));
    end if;
    execute format('select array[%s] %s where %s order by %s offset %s limit 1',
      replace(v_columns, ', ', '::text, ') || '::text', v_from, v_where, v_columns, greatest(a_limit, 1) - 1) into v_boundary;
    if v_boundary is not null then
      v_where := format('%s and (%s) <= (%s)', v_where, v_columns, "bemi".key_literals(a_relation, v_keys, v_boundary));
    end if;
  end if;
  for i in 1..2 loop
    begin
      execute format('select coalesce(array_agg(bemi_locked.bemi_image), ''{}'') from (select %s as bemi_image %s where %s %s for share) as bemi_locked',
        v_image, v_from, v_where, coalesce('order by ' || v_columns, '')) into v_images;
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
    finished_at = case when v_boundary is null then clock_timestamp() end
  where relation = a_relation;
  return cardinality(v_images);
end
$$;

-- A key that was written as text, as literals of its columns' types.
create function "bemi".key_literals(a_relation oid, a_columns text[], a_key text[]) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select string_agg(format('%L::%s', a_key[k.n], format_type(a.atttypid, a.atttypmod)), ', ' order by k.n)
  from unnest(a_columns) with ordinality as k (name, n) join pg_attribute a on a.attrelid = a_relation and a.attname = k.name
$$;
