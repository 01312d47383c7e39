-- Reconciliation: after a gap, what differs between the log's last image of a key and the live row becomes a change.
-- Live rows go through the WAL, as those of a baseline do, so that each is compared at its place in the history of its
-- key, by the worker, when all that was written before is in the log. The log may be in another database.

-- What a log, which may be in another database, has to be told of a table to compare its rows: the names that it has had,
-- where they are more than its own; its columns, where they were altered; those whose changes are not recorded. NULL
-- where there is nothing to tell.
create function "bemi".past_of(a_relation regclass) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select nullif(jsonb_strip_nulls(jsonb_build_object(
    'spans', (select jsonb_agg(to_jsonb(s.*)) from "bemi".table_spans(t.id) as s
      having count(*) > 1 or min(s.since) > '-infinity' or min(s.until) < 'infinity'),
    'columns', (select jsonb_agg(jsonb_strip_nulls(to_jsonb(c.*) - '{table_id,type}'::text[])) from "bemi".table_columns c where c.table_id = t.id
      having (count(c.dropped_at) > 0 or max(c.named_at) > min(c.named_at))
        -- Where the role may not create an event trigger, nothing notices what is altered.
        and not exists (select from pg_attribute a where a.attrelid = t.relation and a.attnum > 0 and not a.attisdropped
          and not exists (select from "bemi".table_columns k where k.table_id = t.id and k.number = a.attnum and k.name = a.attname))),
    'ignored', (select to_jsonb(r.ignored) from "bemi".tracked_tables r where r.relation = t.relation and r.ignored <> '{}'))), '{}')
  from "bemi".tables t where t.relation = a_relation
$$;

-- The names under which the log has a table, as past_of() tells of them.
create function "bemi".spans_in(a_past jsonb, a_schema text, a_table text) returns "bemi".span[]
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select case when a_past ? 'spans' then array(select row(s.*)::"bemi".span from jsonb_populate_recordset(null::"bemi".span, a_past -> 'spans') as s)
    else array[row(a_schema, a_table, '-infinity', 'infinity')::"bemi".span] end
$$;

-- The columns whose changes are not recorded, as past_of() tells of them.
create function "bemi".ignored_in(a_past jsonb) returns text[]
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select array(select jsonb_array_elements_text(a_past -> 'ignored'))
$$;

-- Puts rows into the WAL to be compared: a context message of the operation RECONCILE, then messages as those of
-- emit_snapshots(), with a 4 in front, and with what past_of() tells. Where there is no image there is no such row.
create function "bemi".emit_live_rows(a_relation oid, a_keys text[], a_images jsonb[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  v_secret text := (select secret from "bemi".seal);
  v_past text := "bemi".past_of(a_relation)::text;
begin
  perform "bemi".emit_message(a_relation, a_relation, 'RECONCILE', null, current_setting('bemi.context', true), null, null, v_secret);
  perform pg_logical_emit_message(true, '_bemi', convert_to('4' || json_build_array(a_relation, v_secret,
    r.key, coalesce(r.image::text, 'null'), v_past)::text, "bemi".message_encoding()))
  from unnest(a_keys, a_images) as r (key, image);
end
$$;

create function "bemi".check_reconcilable(a_relation regclass) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (select from "bemi".tracked_tables where relation = a_relation and root = a_relation and capture = 'wal') then
    raise wrong_object_type using message = format('%s is not tracked from the Write-Ahead Log', a_relation);
  end if;
  if not (select pg_has_role(session_user, relowner, 'usage') from pg_class where oid = a_relation) then
    raise insufficient_privilege using message = format('%I does not own %s', session_user, a_relation),
      hint = 'Run this as the owner of the table.';
  end if;
  perform "bemi".check_readable(a_relation);
end
$$;

-- Sends the next rows of a table, at most so many, in the order of its key: returns the key that they reach up to, NULL
-- after the last.
create function "bemi".reconcile_rows(a_relation regclass, a_after text[], a_limit integer) returns text[]
language plpgsql security definer set search_path = pg_catalog, pg_temp
  set timezone = 'UTC' set datestyle = 'ISO, MDY' set intervalstyle = 'postgres' set bytea_output = 'hex'
  set extra_float_digits = 1 set quote_all_identifiers = off set row_security = off
as $$
declare
  v_tracked "bemi".tracked_tables := (select t from "bemi".tracked_tables t where relation = a_relation);
  v_names text[] := "bemi".key_columns(a_relation);
  v_hidden text[];
  v_keys text[];
  v_images jsonb[];
  v_chunk record;
begin
  perform "bemi".check_reconcilable(a_relation);
  -- As decoding has it: before PostgreSQL 18 without generated columns.
  v_hidden := "bemi".masked_columns(a_relation, v_tracked.masked, v_tracked.masked_numbers)
    || case when current_setting('server_version_num')::integer < 180000 then
      array(select attname::text from pg_attribute where attrelid = a_relation and attgenerated <> '' and not attisdropped)
      else '{}' end;
  -- Up to a boundary that is found first, for a row may be given another key while this waits for it.
  select * into v_chunk from "bemi".next_chunk(a_relation, a_after, a_limit);
  -- Whoever wrote one of the rows before has committed; whoever writes one later waits for this transaction.
  execute format('with bemi_locked as materialized (
      select "bemi".image_of(bemi_row.*) as bemi_image from %s as bemi_row where %s order by %s for share)
    select coalesce(array_agg("bemi".key_of(bemi_image, %L)), ''{}''), coalesce(array_agg(bemi_image - %L::text[]), ''{}'')
    from bemi_locked where bemi_image is not null',
    "bemi".own_rows(a_relation), v_chunk.condition, "bemi".key_list(v_names), v_names, v_hidden)
  into v_keys, v_images;
  perform "bemi".emit_live_rows(a_relation, v_keys, v_images) where v_keys <> '{}';
  return v_chunk.boundary;
end
$$;

-- Of these keys, as they are stored, those that no row has: by their text, and where each is a literal of its column's type
-- by that too, for which there is an index. Not where a type's JSON is no literal of it.
create function "bemi".absent_keys(a_relation regclass, a_keys text[]) returns text[]
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  v_names text[] := "bemi".key_columns(a_relation);
  v_query text := format('select coalesce(array_agg(bemi_keys.bemi_key), ''{}'') from %%s where not exists (
    select from %s as bemi_row where %%s%s = bemi_keys.bemi_key)',
    replace("bemi".own_rows(a_relation), '%', '%%'), replace("bemi".key_expression(v_names), '%', '%%'));
  v_absent text[];
begin
  if not exists (
    select from pg_attribute a join pg_type y on y.oid = "bemi".plain_type(a.atttypid, -1)::regtype
    where a.attrelid = a_relation and a.attname = any (v_names)
      and (y.typtype not in ('b', 'e', 'r') or y.typelem <> 0 or y.oid = 'jsonb'::regtype
        or exists (select from pg_cast c where c.castsource = y.oid and c.casttarget = 'json'::regtype)))
  then
    begin
      execute format(v_query,
        (select format('(values %s) as bemi_keys (bemi_key, %s)',
          string_agg(format('(%L, %s)', u.key, "bemi".key_literals(a_relation, v_names, case cardinality(v_names) when 1 then array[u.key]
            else array(select value from jsonb_array_elements_text(u.key::jsonb) with ordinality as e (value, n) order by n) end)), ', '),
          (select string_agg(format('bemi_key_%s', n), ', ' order by n) from generate_series(1, cardinality(v_names)) as n))
        from unnest(a_keys) as u (key)),
        (select string_agg(format('bemi_row.%I = bemi_keys.bemi_key_%s and ', k.name, k.n), '' order by k.n)
        from unnest(v_names) with ordinality as k (name, n))) into v_absent;
      return v_absent;
    exception when data_exception or syntax_error then
      -- Some key is of another time, when the columns were others.
      null;
    end;
  end if;
  execute format(v_query, 'unnest($1) as bemi_keys (bemi_key)', '') into v_absent using a_keys;
  return v_absent;
end
$$;

-- Says of these keys, which the log has, that no row has them, where that is so. Only while nobody writes is that
-- known: the table is locked against writers for as long as the look takes, if there are any such keys.
create function "bemi".reconcile_absent(a_relation regclass, a_keys text[]) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp
  set timezone = 'UTC' set datestyle = 'ISO, MDY' set intervalstyle = 'postgres' set bytea_output = 'hex'
  set extra_float_digits = 1 set quote_all_identifiers = off set row_security = off set lock_timeout = '2s'
as $$
declare
  v_absent text[];
begin
  perform "bemi".check_reconcilable(a_relation);
  if current_setting('transaction_isolation') <> 'read committed' then
    -- A snapshot from before the lock does not have what was committed until then.
    raise object_not_in_prerequisite_state using message = format('Under %s it is not known which rows are absent',
      current_setting('transaction_isolation')), hint = 'Reconcile with default_transaction_isolation = ''read committed''.';
  end if;
  v_absent := "bemi".absent_keys(a_relation, a_keys);
  if v_absent <> '{}' then
    execute format('lock table %s in share mode', a_relation);
    v_absent := "bemi".absent_keys(a_relation, v_absent);
    perform "bemi".emit_live_rows(a_relation, v_absent, array_fill(null::jsonb, array[cardinality(v_absent)]))
    where v_absent <> '{}';
  end if;
  return cardinality(v_absent);
end
$$;

-- What the log knows of a key before a place in it, and since when; NULL where there was no such row. As in
-- effects_without_overtaken(), what left the key after another row had come to it in the same transaction is not what came.
create function "bemi".last_image(a_spans "bemi".span[], a_key text, a_ignored text[], a_source integer, a_commit pg_lsn,
  out image jsonb, out imaged_at timestamptz)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  -- A function whose plan is kept: it is asked for each row. The last three effects on a key tell.
  select e.after, e.committed_at into image, imaged_at
  from (
    select u.*, u.after is null and lead(u.is_arrival) over newest and lead(u.transaction_id) over newest = u.transaction_id
      and (lead(u.after, 2) over newest is not null or u.before - a_ignored <> lead(u.after) over newest - a_ignored) as is_overtaken
    from unnest(a_spans) as s cross join lateral (
      (select c.committed_at, c.source_id, c.commit_lsn, c.transaction_index, c.transaction_id, c.former_primary_key is not null as is_arrival,
        c.before, case when c.operation in ('CREATE', 'UPDATE', 'SNAPSHOT') then c.after end as after
      from "bemi".changes c
      where c."table" = s.name and hashtextextended(c.primary_key, 0) = hashtextextended(a_key, 0) and c.primary_key = a_key
        and c.schema = s.schema and c.committed_at >= s.since and c.committed_at < s.until
        and (a_source is null or c.source_id <> a_source or c.commit_lsn < a_commit)
      order by 1 desc, 2 desc, 3 desc, 4 desc limit 3)
    union all
      -- Another key was given to its row.
      (select c.committed_at, c.source_id, c.commit_lsn, c.transaction_index, c.transaction_id, false, c.before, null
      from "bemi".changes c
      where c."table" = s.name and c.former_primary_key is not null
        and hashtextextended(c.former_primary_key, 0) = hashtextextended(a_key, 0) and c.former_primary_key = a_key
        and c.schema = s.schema and c.committed_at >= s.since and c.committed_at < s.until
        and (a_source is null or c.source_id <> a_source or c.commit_lsn < a_commit)
      order by 1 desc, 2 desc, 3 desc, 4 desc limit 3)
    union all
      -- Of the whole table: what a partition's own TRUNCATE took is not known.
      (select c.committed_at, c.source_id, c.commit_lsn, c.transaction_index, c.transaction_id, false, c.before, null
      from "bemi".changes c
      where c."table" = s.name and c.primary_key is null and c.before = '{}' and c.after = '{}' and c.operation = 'TRUNCATE'
        and not coalesce(c.context -> 'db' ?| '{gap,partition}', false)
        and c.schema = s.schema and c.committed_at >= s.since and c.committed_at < s.until
        and (a_source is null or c.source_id <> a_source or c.commit_lsn < a_commit)
      order by 1 desc, 2 desc, 3 desc, 4 desc limit 1)
    ) as u
    window newest as (order by u.committed_at desc, u.source_id desc, u.commit_lsn desc, u.transaction_index desc)
  ) as e
  where e.is_overtaken is not true
  order by e.committed_at desc, e.source_id desc, e.commit_lsn desc, e.transaction_index desc limit 1;
end
$$;

-- The next keys of a table in the log, by their hash, and whether the log has a row of each.
create function "bemi".logged_keys(a_schema text, a_table text, a_past jsonb, a_hash bigint, a_key text, a_limit integer)
returns table (hash bigint, key text, is_there boolean)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  with spans as materialized (select "bemi".spans_in(a_past, a_schema, a_table) as all_of)
  select k.hash, k.key, (select l.image is not null from "bemi".last_image(spans.all_of, k.key, "bemi".ignored_in(a_past), null, null) as l)
  from spans cross join lateral (
    select distinct u.hash, u.key
    from unnest(spans.all_of) as s cross join lateral (
      select distinct hashtextextended(c.primary_key, 0) as hash, c.primary_key as key
      from "bemi".changes c
      where c."table" = s.name and c.schema = s.schema and c.primary_key is not null
        and c.committed_at >= s.since and c.committed_at < s.until
        and hashtextextended(c.primary_key, 0) >= a_hash
        and (hashtextextended(c.primary_key, 0), c.primary_key) > (a_hash, a_key)
      order by 1, 2 limit a_limit
    ) as u
    order by 1, 2 limit a_limit
  ) as k
$$;

-- Writes what differs between a live row and the log before it, given as a JSON object of the log's columns whose
-- after is the row, or null: a change that says by its context that it comes from here. Columns that only the log has
-- were dropped, and one that only the row has differs unless it is NULL. Returns NULL where nothing differs, 00000
-- where a change was written, else the SQLSTATE with which it was set aside.
create function "bemi".write_difference(a_id uuid, a_change text, a_past jsonb default null) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  v_change jsonb := a_change::jsonb;
  v_live jsonb := nullif(v_change -> 'after', 'null');
  v_ignored text[] := "bemi".ignored_in(a_past);
  v_logged jsonb;
  v_logged_at timestamptz;
begin
  select l.image, l.imaged_at into v_logged, v_logged_at
  from "bemi".last_image("bemi".spans_in(a_past, v_change ->> 'schema', v_change ->> 'table'), v_change ->> 'primary_key', v_ignored,
    (v_change ->> 'source_id')::integer, (v_change ->> 'commit_lsn')::pg_lsn) as l;
  if v_logged is not null and a_past ? 'columns' then
    v_logged := "bemi".shape_image(array(select c from jsonb_populate_recordset(null::"bemi".table_columns, a_past -> 'columns') as c),
      v_logged, v_logged_at);
  end if;
  if v_live is null and v_logged is null
    or v_live is not null and v_logged is not null and not exists (
      select from jsonb_each(v_live - v_ignored) as l (name, value) where l.value <> coalesce(v_logged -> l.name, 'null'))
  then
    return null;
  end if;
  v_change := v_change || jsonb_build_object(
    'operation', case when v_live is null then 'DELETE' when v_logged is null then 'CREATE' else 'UPDATE' end,
    'before', coalesce(v_logged, '{}'), 'after', coalesce(v_live, '{}'));
  -- Begins as the worker writes it: breaks_of() looks for that in what was set aside.
  return coalesce("bemi".write_or_set_aside(a_id, format('{"schema":%s,"table":%s,"committed_at":"%s",',
    v_change -> 'schema', v_change -> 'table', v_change ->> 'committed_at') || substr(v_change::text, 2)), '00000');
end
$$;

-- Marks the gaps as closed that were on record at a time.
create function "bemi".close_gaps(a_before timestamptz) returns bigint
language sql volatile set search_path = pg_catalog, pg_temp
as $$
  with closed as (
    update "bemi".gaps set reconciled_at = clock_timestamp() where reconciled_at is null and detected_at < a_before returning 1
  ) select count(*) from closed
$$;
