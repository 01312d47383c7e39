-- The rows of a table, or one of them, as they were at a moment.

-- The primary key of a row as the log writes it, as an expression over the alias bemi_row.
create function "bemi".key_expression(a_keys text[]) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select case cardinality(a_keys) when 0 then 'null::text'
    when 1 then format('(to_jsonb(bemi_row.%I) #>> ''{}'')', a_keys[1])
    else format('jsonb_build_array(%s)::text', (select string_agg(format('bemi_row.%I', k.name), ', ' order by k.n)
      from unnest(a_keys) with ordinality as k (name, n))) end
$$;

-- What the log knows of a table around a moment, and so how to read it.
create type "bemi".ground as (
  table_id integer, keys text[], ignored text[], masked text[], tracked_at timestamptz,
  spans "bemi".span[],
  -- Not NULL where all that the log has is of one: then LSNs are an order.
  only_epoch integer,
  -- After which all is known: a break by time, or a TRUNCATE by its place.
  broken_at timestamptz, truncated "bemi".place,
  -- Up to which nothing came between.
  until timestamptz,
  -- Whether what the log has after that says everything, and whether what lies before the moment does.
  is_complete boolean, is_forward boolean,
  -- Whether rows of the table ever changed their keys.
  has_moves boolean,
  -- Images before this are of other shapes than today's, and so are those that lack one of these columns.
  shaped_at timestamptz, columns text[]
);

-- Forwards from a baseline or a TRUNCATE, after which everything is known; else backwards from the live table, where
-- what is live and what is in the log are seen at once: with capture by triggers. Where neither will do, an error
-- says from when on it is known.
create function "bemi".ground_of(a_relation regclass, a_moment "bemi".moment, a_key text) returns "bemi".ground
language plpgsql stable set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan
as $$
declare
  v_tracked "bemi".tracked_tables := (select t from "bemi".tracked_tables t where relation = a_relation and root = a_relation);
  v_baseline "bemi".baselines := (select b from "bemi".baselines b where relation = a_relation);
  v_log_start timestamptz := "bemi".log_start();
  v_ground "bemi".ground;
  v_break record;
  v_last_reason text;
  v_next_break timestamptz;
  v_next_reason text;
  v_mark record;
  v_next_truncate timestamptz;
  v_start timestamptz;
  v_is_blank boolean;
begin
  v_ground.table_id := (select id from "bemi".tables where relation = a_relation);
  v_ground.keys := "bemi".key_columns(a_relation);
  v_ground.ignored := v_tracked.ignored;
  v_ground.masked := case when v_tracked.masked = '{}' then '{}'
    else "bemi".masked_columns(a_relation, v_tracked.masked, v_tracked.masked_numbers) end;
  v_ground.tracked_at := v_tracked.tracked_at;
  if v_tracked is null then
    raise exception using errcode = 'BE001', message = format('%s is not tracked', a_relation),
      hint = case when pg_partition_root(a_relation) <> a_relation then format('Ask its root, %s.', pg_partition_root(a_relation))
        else 'Its history begins when it is tracked: bemi track' end;
  end if;
  if a_moment.at is null then
    raise null_value_not_allowed using message = 'As of when? The time is null';
  end if;
  if a_key is not null and v_ground.keys = '{}' then
    raise exception using errcode = 'BE001', message = format('%s has no primary key to look a row up by', a_relation);
  end if;
  if a_moment.at < v_tracked.tracked_at then
    raise exception using errcode = 'BE001',
      message = format('The rows of %s as of %s are not known', a_relation, a_moment.at),
      hint = format('They are known from %s on, when it came to be tracked.', v_tracked.tracked_at);
  end if;
  if a_moment.at < v_log_start then
    raise exception using errcode = 'BE001',
      message = format('The rows of %s as of %s are not known: older changes are past their retention', a_relation, a_moment.at),
      hint = "bemi".known_hint(a_relation, v_tracked.tracked_at);
  end if;

  v_ground.spans := array(select row(s.*)::"bemi".span from "bemi".table_spans(v_ground.table_id) as s);
  v_ground.only_epoch := (select min(e.epoch) from "bemi".epochs e having min(e.epoch) = max(e.epoch));
  for v_break in select b.broken_at, b.reason from "bemi".breaks_of(a_relation, a_moment.at) as b loop
    if v_break.broken_at <= a_moment.at then
      if v_break.broken_at >= coalesce(v_ground.broken_at, '-infinity') then
        v_ground.broken_at := v_break.broken_at;
        v_last_reason := v_break.reason;
      end if;
    elsif v_break.broken_at > a_moment.at and (v_next_break is null or v_break.broken_at < v_next_break) then
      v_next_break := v_break.broken_at;
      v_next_reason := v_break.reason;
    end if;
  end loop;
  v_start := greatest(v_tracked.tracked_at, v_ground.broken_at);
  for v_mark in
    select row(e.epoch, m.commit_lsn, m.transaction_index)::"bemi".place as place, m.committed_at,
      "bemi".is_past(a_moment, m.committed_at, e.epoch, m.commit_lsn, m.transaction_index, m.transaction_id) as is_past
    from "bemi".marks_of(v_ground.spans, v_tracked.tracked_at) as m join "bemi".epochs e on e.source_id = m.source_id
    where m.operation = 'TRUNCATE' and not coalesce(m.context -> 'db' ?| '{gap,partition}', false)
    order by 1
  loop
    if not v_mark.is_past then
      v_next_truncate := least(v_next_truncate, v_mark.committed_at);
    elsif v_ground.broken_at is null or v_mark.committed_at > v_ground.broken_at then
      v_ground.truncated := v_mark.place;
    end if;
  end loop;
  v_is_blank := v_ground.truncated is not null or coalesce(v_baseline.finished_at = v_start, false);
  v_ground.until := coalesce(v_next_break, 'infinity');
  v_ground.is_complete := v_is_blank
    -- A baseline tells of the time before it too, as far as nothing came between.
    or v_ground.keys <> '{}' and v_baseline.finished_at is not null and v_baseline.started_at >= v_start and v_baseline.skipped_count = 0
      and (v_baseline.finished_at <= a_moment.at or v_baseline.finished_at < least(v_next_break, v_next_truncate, 'infinity'));
  v_ground.is_forward := v_ground.is_complete and (v_is_blank or v_baseline.finished_at <= a_moment.at);
  if not v_ground.is_complete and (v_tracked.capture <> 'trigger' or v_next_break is not null or v_next_truncate is not null) then
    raise exception using errcode = 'BE001',
      message = format('The rows of %s as of %s are not all known%s', a_relation, a_moment.at,
        coalesce(': ' || coalesce(v_last_reason || ' at ' || v_ground.broken_at, v_next_reason || ' at ' || v_next_break), '')),
      hint = "bemi".known_hint(a_relation, v_start);
  end if;

  select max(greatest(c.named_at, c.dropped_at)) into v_ground.shaped_at
  from "bemi".table_columns c where c.table_id = v_ground.table_id
    and (c.dropped_at is not null or c.named_at > (select min(f.named_at) from "bemi".table_columns f where f.table_id = v_ground.table_id));
  if v_ground.shaped_at is not null then
    v_ground.columns := array(select a.attname::text from pg_attribute a
      where a.attrelid = a_relation and a.attnum > 0 and not a.attisdropped and a.attgenerated = '' and a.attname <> all (v_ground.masked));
  end if;
  if a_key is null then
    v_ground.has_moves := exists (select from unnest(v_ground.spans) as s cross join lateral (select from "bemi".changes c
      where c."table" = s.name and c.schema = s.schema and c.committed_at >= greatest(s.since, v_tracked.tracked_at) and c.committed_at < s.until
        and c.former_primary_key is not null limit 1) as moved);
  else
    v_ground.has_moves := exists (select from unnest(v_ground.spans) as s cross join lateral (select from "bemi".changes c
        where c."table" = s.name and c.schema = s.schema and c.committed_at >= greatest(s.since, v_tracked.tracked_at) and c.committed_at < s.until
          and hashtextextended(c.former_primary_key, 0) = hashtextextended(a_key, 0) and c.former_primary_key = a_key limit 1) as gone)
      or exists (select from unnest(v_ground.spans) as s cross join lateral (select from "bemi".changes c
        where c."table" = s.name and c.schema = s.schema and c.committed_at >= greatest(s.since, v_tracked.tracked_at) and c.committed_at < s.until
          and hashtextextended(c.primary_key, 0) = hashtextextended(a_key, 0) and c.primary_key = a_key and c.former_primary_key is not null limit 1) as come);
  end if;
  return v_ground;
end
$$;

-- The live rows of a table as a query for their keys and images. A key has to be spelled as the log spells it: the log has
-- nothing of 01, or of a uuid in capitals, and so today's row would seem to be that of any time.
create function "bemi".live_query(a_relation regclass, a_ground "bemi".ground, a_key text) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select format('select %s collate "C" as bemi_key, to_jsonb(bemi_row.*) - %L::text[] as bemi_image from %s%s as bemi_row where %s',
    e.key, a_ground.masked, case c.relkind when 'p' then '' else 'only ' end, a_relation,
    case when a_key is null then 'true' else format('(%s) = (%s) and %s = %L',
      (select string_agg(format('bemi_row.%I', k.name), ', ' order by k.n) from unnest(a_ground.keys) with ordinality as k (name, n)),
      "bemi".key_literals(a_relation, a_ground.keys, case cardinality(a_ground.keys) when 1 then array[a_key]
        else array(select value from jsonb_array_elements_text(a_key::jsonb) with ordinality as e (value, n) order by n) end),
      e.key, a_key) end)
  from pg_class c, "bemi".key_expression(a_ground.keys) as e (key) where c.oid = a_relation
$$;

-- The rows of a tracked table as they were at a moment, as a query for their keys, images and the images' times.
create function "bemi".images_query(a_relation regclass, a_moment "bemi".moment, a_ground "bemi".ground, a_key text default null) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  v_past text := "bemi".past_condition(a_moment);
  -- One epoch is a constant, by which nothing has to be joined or sorted.
  v_from text := format('from "bemi".changes %s where %s and changes.committed_at >= %L',
    case when a_ground.only_epoch is null then 'join "bemi".epochs on epochs.source_id = changes.source_id'
      else format('cross join (values (%s)) as epochs (epoch)', a_ground.only_epoch) end,
    "bemi".names_condition(a_ground.table_id), a_ground.tracked_at);
  v_since text := case when a_ground.truncated is not null
      then format('(epochs.epoch, changes.commit_lsn, changes.transaction_index) > (%s, %L::pg_lsn, %s)',
        (a_ground.truncated).epoch, (a_ground.truncated).lsn, (a_ground.truncated).index)
    when a_ground.broken_at is not null then format('changes.committed_at > %L', greatest(a_ground.tracked_at, a_ground.broken_at))
    else 'true' end;
  v_shaped text := case when a_ground.shaped_at is null then 'bemi_image'
    else format('case when bemi_at >= %L and bemi_image ?& %L then bemi_image else "bemi".shape_image(%s, bemi_image, bemi_at) end',
      a_ground.shaped_at, a_ground.columns, a_ground.table_id) end;
  v_effects text;
begin
  if a_ground.keys = '{}' then
    -- Rows are counted: what is there and what went, less what came.
    return format($query$
      select null::text as primary_key, "bemi".repeatable_image(counted.bemi_image, counted.times, %4$L) as image, clock_timestamp() as imaged_at
      from (
        select %2$s as bemi_image, sum(n) as times
        from (
          select changes.before as bemi_image, changes.committed_at as bemi_at, %5$s as n %1$s and changes.before <> '{}' and %6$s
          union all
          select changes.after, changes.committed_at, -1 * %5$s %1$s and changes.after <> '{}' and changes.operation <> 'SNAPSHOT' and %6$s
          %3$s
        ) as effects
        group by 1 having sum(n) <> 0
      ) as counted, generate_series(1, greatest(counted.times, 1))$query$,
      v_from, v_shaped,
      case when not a_ground.is_complete then format('union all select bemi_image, clock_timestamp(), 1 from (%s) as live', "bemi".live_query(a_relation, a_ground, null)) end,
      a_relation::text, case when a_ground.is_complete then -1 else 1 end,
      case when a_ground.is_complete then format('%s and %s', v_since, v_past) else format('not (%s)', v_past) end);
  end if;
  if a_ground.is_forward and not a_ground.has_moves then
    return format($query$
      select bemi_key as primary_key, %2$s as image, bemi_at as imaged_at
      from (
        select distinct on (changes.primary_key collate "C") changes.primary_key collate "C" as bemi_key,
          case when changes.operation <> 'DELETE' then changes.after end as bemi_image, changes.committed_at as bemi_at
        %1$s and changes.primary_key is not null %3$s and %4$s and %5$s
        order by changes.primary_key collate "C", epochs.epoch desc, changes.commit_lsn desc, changes.transaction_index desc
      ) as last
      where bemi_image is not null$query$, v_from, v_shaped,
      case when a_key is not null then format('and hashtextextended(changes.primary_key, 0) = hashtextextended(%1$L, 0) and changes.primary_key = %1$L', a_key) end,
      v_since, v_past);
  end if;

  -- What each change did to each key that it names: before and after are NULL where there was, or is, no row.
  v_effects := format($query$
    select changes.primary_key collate "C" as bemi_key, epochs.epoch, changes.commit_lsn, changes.transaction_index, changes.transaction_id,
      changes.former_primary_key is not null as is_move, %2$s as is_past, changes.committed_at,
      case changes.operation when 'UPDATE' then case when changes.former_primary_key is null then changes.before end
        when 'DELETE' then changes.before when 'SNAPSHOT' then changes.after end as before,
      case when changes.operation <> 'DELETE' then changes.after end as after
    %1$s and changes.primary_key is not null %3$s and %5$s
    union all
    select changes.former_primary_key collate "C", epochs.epoch, changes.commit_lsn, changes.transaction_index, changes.transaction_id,
      true, %2$s, changes.committed_at, changes.before, null
    %1$s and changes.former_primary_key is not null %4$s and %5$s$query$,
    v_from, v_past,
    case when a_key is not null then format('and hashtextextended(changes.primary_key, 0) = hashtextextended(%1$L, 0) and changes.primary_key = %1$L', a_key) end,
    case when a_key is not null then format('and hashtextextended(changes.former_primary_key, 0) = hashtextextended(%1$L, 0) and changes.former_primary_key = %1$L', a_key) end,
    case when not a_ground.is_complete then format('not (%s)', v_past)
      when a_ground.is_forward then format('%s and %s', v_since, v_past)
      -- What came after a break may be of rows that came in it.
      else format('%s and changes.committed_at < %L', v_since, a_ground.until) end);
  v_effects := "bemi".effects_without_overtaken(v_effects, a_ground.has_moves, a_ground.ignored);
  if a_ground.is_complete then
    return format($query$
      select bemi_key as primary_key, %2$s as image, bemi_at as imaged_at
      from (
        select distinct on (bemi_key) bemi_key, is_past, case when is_past then after else before end as bemi_image, committed_at as bemi_at
        from (%1$s) as effects
        order by bemi_key, is_past desc,
          case when is_past then epoch end desc, case when is_past then commit_lsn end desc, case when is_past then transaction_index end desc,
          epoch, commit_lsn, transaction_index
      ) as last
      where bemi_image is not null$query$, v_effects, v_shaped);
  end if;
  return format($query$
    with first as materialized (
      select distinct on (bemi_key) bemi_key, before as bemi_image, committed_at as bemi_at
      from (%1$s) as effects
      order by bemi_key, epoch, commit_lsn, transaction_index
    )
    select bemi_key as primary_key, %2$s as image, bemi_at as imaged_at from first where bemi_image is not null
    union all
    select live.bemi_key, live.bemi_image, clock_timestamp() from (%3$s) as live
    where not exists (select from first where first.bemi_key = live.bemi_key)$query$,
    v_effects, v_shaped, "bemi".live_query(a_relation, a_ground, a_key));
end
$$;

-- The same of one row whose key has always been its own: by the last change until then, else by the first one after,
-- else as it is. The plans are kept.
create function "bemi".key_image(a_relation regclass, a_moment "bemi".moment, a_ground "bemi".ground, a_key text, out image jsonb, out imaged_at timestamptz)
language plpgsql stable set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan
as $$
begin
  if a_ground.is_complete then
    select case when c.operation <> 'DELETE' then c.after end, c.committed_at into image, imaged_at
    from unnest(a_ground.spans) as s cross join lateral (
      select k.* from "bemi".changes k
      where k."table" = s.name and k.schema = s.schema and k.committed_at >= greatest(s.since, a_ground.tracked_at) and k.committed_at < s.until
        and k.committed_at <= case when a_moment.epoch is null then a_moment.at else 'infinity' end
        and hashtextextended(k.primary_key, 0) = hashtextextended(a_key, 0) and k.primary_key = a_key
    ) as c join "bemi".epochs e on e.source_id = c.source_id
    where "bemi".is_past(a_moment, c.committed_at, e.epoch, c.commit_lsn, c.transaction_index, c.transaction_id)
      and case when a_ground.truncated is not null then row(e.epoch, c.commit_lsn, c.transaction_index)::"bemi".place > a_ground.truncated
        else a_ground.broken_at is null or c.committed_at > a_ground.broken_at end
    order by e.epoch desc, c.commit_lsn desc, c.transaction_index desc limit 1;
  end if;
  if not a_ground.is_forward and imaged_at is null then
    select case c.operation when 'SNAPSHOT' then c.after when 'CREATE' then null else c.before end, c.committed_at into image, imaged_at
    from unnest(a_ground.spans) as s cross join lateral (
      select k.* from "bemi".changes k
      where k."table" = s.name and k.schema = s.schema and k.committed_at >= greatest(s.since, a_ground.tracked_at) and k.committed_at < s.until
        and k.committed_at >= case when a_moment.epoch is null then a_moment.at else '-infinity' end
        and hashtextextended(k.primary_key, 0) = hashtextextended(a_key, 0) and k.primary_key = a_key
    ) as c join "bemi".epochs e on e.source_id = c.source_id
    where not "bemi".is_past(a_moment, c.committed_at, e.epoch, c.commit_lsn, c.transaction_index, c.transaction_id)
      and (not a_ground.is_complete or c.committed_at < a_ground.until)
    order by e.epoch, c.commit_lsn, c.transaction_index limit 1;
    if not found and not a_ground.is_complete then
      execute format('select live.bemi_image, clock_timestamp() from (%s) as live', "bemi".live_query(a_relation, a_ground, a_key))
        into image, imaged_at;
      return;
    end if;
  end if;
  if image is not null and a_ground.shaped_at is not null and (imaged_at < a_ground.shaped_at or not image ?& a_ground.columns) then
    image := "bemi".shape_image(a_ground.table_id, image, imaged_at);
  end if;
end
$$;

-- The rows of a tracked table as they were at a moment, as jsonb of today's columns. Images of live rows are put beside the
-- log's, and so are made as capture_statement() makes them, whatever the session's settings.
create function "bemi".images_as_of(a_relation regclass, a_moment "bemi".moment)
returns table (primary_key text, image jsonb, imaged_at timestamptz)
language plpgsql stable set search_path = pg_catalog, pg_temp
  set timezone = 'UTC' set datestyle = 'ISO, MDY' set intervalstyle = 'postgres' set bytea_output = 'hex'
  set extra_float_digits = 1 set quote_all_identifiers = off
as $$
begin
  return query execute "bemi".images_query(a_relation, a_moment, "bemi".ground_of(a_relation, a_moment, null));
end
$$;

-- A key can be reached by one row before the other has left it, when a statement shifts keys: what leaves then is not
-- what came. Such a departure must not be taken for the end of the newcomer (forwards), nor such an arrival for the
-- beginning of the key (backwards, or before a first image): they are left out.
create function "bemi".effects_without_overtaken(a_effects text, a_has_moves boolean, a_ignored text[]) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select case when not a_has_moves then a_effects else format($query$
    select * from (
      select effects.*,
        after is null and lag(is_move and before is null) over key_order and lag(transaction_id) over key_order = transaction_id
          and (lag(after, 2) over key_order is not null or before - %2$L::text[] <> lag(after) over key_order - %2$L::text[]) as is_overtaken,
        is_move and before is null and lead(after) over key_order is null and lead(transaction_id) over key_order = transaction_id
          and (lag(after) over key_order is not null or lead(before) over key_order - %2$L::text[] <> after - %2$L::text[]) as is_overtaking
      from (%1$s) as effects
      window key_order as (partition by bemi_key order by epoch, commit_lsn, transaction_index)
    ) as marked where not coalesce(case when is_past then is_overtaken else is_overtaking end, false)$query$, a_effects, a_ignored) end
$$;

create function "bemi".repeatable_image(a_image jsonb, a_times numeric, a_relation text) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  if a_times < 0 then
    raise exception using errcode = 'BE001', message = format('The changes of %s do not add up: it has no primary key to tell its rows apart by', a_relation),
      hint = 'A table without a key is known as long as no column of it is ignored, and none was added or changed.';
  end if;
  return a_image;
end
$$;
