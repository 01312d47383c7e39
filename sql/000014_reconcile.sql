-- Reconciliation: after a gap, what differs between the log's last image of a key and the live row becomes a change.
-- Live rows go through the WAL, as those of a baseline do, so that each is compared at its place in the history of its
-- key, by the worker, when all that was written before is in the log. The log may be in another database.

-- Puts rows into the WAL to be compared: a context message of the operation RECONCILE, then messages as those of
-- emit_snapshots(), with a 4 in front. Where there is no image there is no such row.
create function "bemi".emit_live_rows(a_relation oid, a_keys text[], a_images jsonb[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  v_secret text := (select secret from "bemi".seal);
begin
  perform "bemi".emit_message(a_relation, a_relation, 'RECONCILE', null, current_setting('bemi.context', true), null, null, v_secret);
  perform pg_logical_emit_message(true, '_bemi', convert_to('4' || json_build_array(a_relation, v_secret,
    r.key, coalesce(r.image::text, 'null'))::text, "bemi".message_encoding()))
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
end
$$;

-- Sends the next rows of a table, at most so many, in the order of its key: returns the last key, NULL after the last.
create function "bemi".reconcile_rows(a_relation regclass, a_after text[], a_limit integer) returns text[]
language plpgsql security definer set search_path = pg_catalog, pg_temp
set datestyle = 'ISO, MDY' set intervalstyle = 'postgres' set extra_float_digits = 1
as $$
declare
  v_tracked "bemi".tracked_tables := (select t from "bemi".tracked_tables t where relation = a_relation);
  v_names text[] := "bemi".key_columns(a_relation);
  v_columns text;
  v_hidden text[];
  v_keys text[];
  v_images jsonb[];
  v_last text[];
begin
  perform "bemi".check_reconcilable(a_relation);
  select string_agg(format('bemi_row.%I', k.name), ', ' order by k.n) into v_columns
  from unnest(v_names) with ordinality as k (name, n);
  -- As decoding has it: before PostgreSQL 18 without generated columns.
  v_hidden := "bemi".masked_columns(a_relation, v_tracked.masked, v_tracked.masked_numbers)
    || case when current_setting('server_version_num')::integer < 180000 then
      array(select attname::text from pg_attribute where attrelid = a_relation and attgenerated <> '' and not attisdropped)
      else '{}' end;
  -- Whoever wrote one of the rows before has committed; whoever writes one later waits for this transaction.
  execute format('with bemi_locked as materialized (
      select "bemi".image_of(bemi_row.*) as bemi_image, array[%1$s::text] as bemi_key
      from %2$s%3$s as bemi_row where %4$s order by %5$s limit %6$s for share)
    select coalesce(array_agg("bemi".key_of(bemi_image, %7$L)) filter (where bemi_image is not null), ''{}''),
      coalesce(array_agg(bemi_image - %8$L::text[]) filter (where bemi_image is not null), ''{}''),
      (array_agg(bemi_key::text))[count(*)::integer]::text[]
    from bemi_locked',
    replace(v_columns, ', ', '::text, '), case (select relkind from pg_class where oid = a_relation) when 'p' then '' else 'only ' end,
    a_relation,
    case when a_after is null then 'true' else format('(%s) > (%s)', v_columns, "bemi".key_literals(a_relation, v_names, a_after)) end,
    v_columns, a_limit, v_names, v_hidden)
  into v_keys, v_images, v_last;
  if v_last is not null then
    perform "bemi".emit_live_rows(a_relation, v_keys, v_images);
  end if;
  return v_last;
end
$$;

-- Of these keys, as they are stored, those that no row has.
create function "bemi".absent_keys(a_relation regclass, a_keys text[]) returns text[]
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  v_names text[] := "bemi".key_columns(a_relation);
  v_condition text;
  v_absent text[];
begin
  select string_agg(format('bemi_row.%I = (%s)::%s', a.attname,
      case cardinality(v_names) when 1 then 'bemi_key' else format('bemi_key::jsonb ->> %s', k.n - 1) end,
      format_type(a.atttypid, a.atttypmod)), ' and ')
  into v_condition
  from unnest(v_names) with ordinality as k (name, n) join pg_attribute a on a.attrelid = a_relation and a.attname = k.name;
  execute format('select coalesce(array_agg(bemi_key), ''{}'') from unnest($1) as bemi_key
    where not exists (select from %s%s as bemi_row where %s)',
    case (select relkind from pg_class where oid = a_relation) when 'p' then '' else 'only ' end, a_relation, v_condition)
  into v_absent using a_keys;
  return v_absent;
end
$$;

-- Says of these keys, which the log has, that no row has them, where that is so. Only while nobody writes is that
-- known: the table is locked against writers for as long as the look takes, if there are any such keys.
create function "bemi".reconcile_absent(a_relation regclass, a_keys text[]) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '2s'
as $$
declare
  v_absent text[];
begin
  perform "bemi".check_reconcilable(a_relation);
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

-- What the log knows of a key before a place in it; NULL where there was no such row.
create function "bemi".last_image(a_schema text, a_table text, a_key text, a_source integer, a_commit pg_lsn) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  -- A function whose plan is kept: it is asked for each row.
  return (select case when u.operation in ('CREATE', 'UPDATE', 'SNAPSHOT') then u.after end
  from (
    (select c.committed_at, c.source_id, c.commit_lsn, c.transaction_index, c.operation, c.after
    from "bemi".changes c
    where c."table" = a_table and hashtextextended(c.primary_key, 0) = hashtextextended(a_key, 0) and c.primary_key = a_key
      and c.schema = a_schema and (a_source is null or c.source_id <> a_source or c.commit_lsn < a_commit)
    order by 1 desc, 2 desc, 3 desc, 4 desc limit 1)
    union all
    -- Another key was given to its row.
    (select c.committed_at, c.source_id, c.commit_lsn, c.transaction_index, 'LEFT', null
    from "bemi".changes c
    where c."table" = a_table and c.former_primary_key is not null
      and hashtextextended(c.former_primary_key, 0) = hashtextextended(a_key, 0) and c.former_primary_key = a_key
      and c.schema = a_schema and (a_source is null or c.source_id <> a_source or c.commit_lsn < a_commit)
    order by 1 desc, 2 desc, 3 desc, 4 desc limit 1)
    union all
    (select c.committed_at, c.source_id, c.commit_lsn, c.transaction_index, c.operation, null
    from "bemi".changes c
    where c."table" = a_table and hashtextextended(c.primary_key, 0) is null and c.operation = 'TRUNCATE'
      and c.schema = a_schema and (a_source is null or c.source_id <> a_source or c.commit_lsn < a_commit)
    order by 1 desc, 2 desc, 3 desc, 4 desc limit 1)
  ) as u
  order by u.committed_at desc, u.source_id desc, u.commit_lsn desc, u.transaction_index desc limit 1);
end
$$;

-- The next keys of a table in the log, by their hash, and whether the log has a row of each.
create function "bemi".logged_keys(a_schema text, a_table text, a_hash bigint, a_key text, a_limit integer)
returns table (hash bigint, key text, is_there boolean)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  select k.hash, k.key, "bemi".last_image(a_schema, a_table, k.key, null, null) is not null
  from (
    select distinct hashtextextended(c.primary_key, 0) as hash, c.primary_key as key
    from "bemi".changes c
    where c."table" = a_table and c.schema = a_schema and c.primary_key is not null
      and hashtextextended(c.primary_key, 0) >= a_hash
      and (hashtextextended(c.primary_key, 0), c.primary_key) > (a_hash, a_key)
    order by 1, 2 limit a_limit
  ) as k
$$;

-- Writes what differs between a live row and the log before it, given as a JSON object of the log's columns whose
-- after is the row, or null: a change that says by its context that it comes from here. Columns that only the log has
-- were dropped, and one that only the row has differs unless it is NULL. Returns NULL where nothing differs, 00000
-- where a change was written, else the SQLSTATE with which it was set aside.
create function "bemi".write_difference(a_id uuid, a_change text) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  v_change jsonb := a_change::jsonb;
  v_live jsonb := nullif(v_change -> 'after', 'null');
  v_logged jsonb := "bemi".last_image(v_change ->> 'schema', v_change ->> 'table', v_change ->> 'primary_key',
    (v_change ->> 'source_id')::integer, (v_change ->> 'commit_lsn')::pg_lsn);
begin
  if v_live is null and v_logged is null
    or v_live is not null and v_logged is not null and not exists (
      select from jsonb_each(v_live) as l (name, value) where l.value <> coalesce(v_logged -> l.name, 'null'))
  then
    return null;
  end if;
  return coalesce("bemi".write_or_set_aside(a_id, (v_change || jsonb_build_object(
    'operation', case when v_live is null then 'DELETE' when v_logged is null then 'CREATE' else 'UPDATE' end,
    'before', coalesce(v_logged, '{}'), 'after', coalesce(v_live, '{}')))::text), '00000');
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
