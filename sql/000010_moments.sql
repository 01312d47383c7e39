-- What is known of a moment: which changes lie before it, and what the log cannot tell.

-- A moment in the log: a clock time, or (epoch not NULL) a place in the total order, without the transactions excluded.
create type "bemi".moment as (at timestamptz, epoch integer, lsn pg_lsn, index bigint, excluded bigint[]);

create function "bemi".moment_at(a_time timestamptz) returns "bemi".moment
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select row(a_time, null, null, null, null)::"bemi".moment
$$;

-- Whether a transaction that triggers captured has changes behind a place. Found by its number, for of one that is long
-- ago all of the log lies behind it.
create function "bemi".goes_on(a_sources integer[], a_transaction bigint, a_lsn pg_lsn, a_index bigint) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select coalesce(bool_or((c.commit_lsn, c.transaction_index) > (a_lsn, a_index)), false)
  from "bemi".changes c where c.transaction_id = a_transaction and c.source_id + 0 = any (a_sources)
$$;

-- Of the transactions that have changes on both sides of a moment, those that tell of a row: the last that do, since until
-- a transaction ends nobody else can change its rows, but a baseline can read them.
create function "bemi".cut_transactions(a_moment "bemi".moment, a_sources integer[], a_relation regclass, a_key text) returns bigint[]
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  v_spans "bemi".span[] := array(select row(s.*)::"bemi".span
    from "bemi".tables t, "bemi".table_spans(t.id) as s where t.relation = a_relation);
  v_cut bigint[] := '{}';
  v_transaction bigint;
begin
  for v_transaction in
    select c.transaction_id
    from unnest(v_spans) as s cross join lateral (
      select * from "bemi".changes k
      where k."table" = s.name and k.schema = s.schema and k.committed_at >= s.since and k.committed_at < s.until
        and hashtextextended(k.primary_key, 0) = hashtextextended(a_key, 0) and k.primary_key = a_key
      union all
      select * from "bemi".changes k
      where k."table" = s.name and k.schema = s.schema and k.committed_at >= s.since and k.committed_at < s.until
        and hashtextextended(k.former_primary_key, 0) = hashtextextended(a_key, 0) and k.former_primary_key = a_key
      union all
      select * from "bemi".marks_of(array[s], '-infinity')
    ) as c
    where c.source_id = any (a_sources) and (c.commit_lsn, c.transaction_index) <= (a_moment.lsn, a_moment.index)
    order by c.commit_lsn desc, c.transaction_index desc
  loop
    continue when v_transaction = any (a_moment.excluded || v_cut);
    exit when not "bemi".goes_on(a_sources, v_transaction, a_moment.lsn, a_moment.index);
    v_cut := v_cut || v_transaction;
  end loop;
  return v_cut;
end
$$;

-- Just before or just after a transaction, which is named by one of its changes. From the WAL, transactions are in the
-- order of their commits. By triggers, they are taken in the order of their last changes: whatever depends on another
-- comes after it, and none is cut in two. To be asked of one row alone where a key is given.
create function "bemi".moment_of(a_change uuid, a_edge text default 'after', a_relation regclass default null, a_key text default null)
returns "bemi".moment
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  -- An id of ours begins with the milliseconds of committed_at.
  v_time timestamptz := timestamptz 'epoch' + ('x' || replace(left(a_change::text, 13), '-', ''))::bit(48)::bigint * interval '1 millisecond';
  v_change record;
  v_moment "bemi".moment;
  v_sources integer[];
begin
  if a_edge not in ('before', 'after') or a_edge is null then
    raise invalid_parameter_value using message = format('Unknown edge %L', a_edge), hint = 'It is before or after.';
  end if;
  select c.*, e.epoch, s.capture into v_change
  from "bemi".changes c join "bemi".epochs e on e.source_id = c.source_id join "bemi".sources s on s.id = c.source_id
  where c.id = a_change
    -- Imported changes keep their ids, which are random.
    and (substr(a_change::text, 15, 1) <> '7' or c.committed_at between v_time - interval '1 millisecond' and v_time + interval '2 milliseconds');
  if not found then
    raise exception using errcode = 'BE002', message = format('There is no change %s in the log', a_change);
  end if;
  v_moment.at := v_change.committed_at;
  v_moment.epoch := v_change.epoch;
  v_moment.lsn := v_change.commit_lsn;
  v_moment.index := case a_edge when 'after' then 9223372036854775807 else -1 end;
  v_moment.excluded := '{}';
  if v_change.capture = 'trigger' then
    select c.committed_at, c.commit_lsn, c.transaction_index into v_moment.at, v_moment.lsn, v_moment.index
    from "bemi".changes c
    where c.source_id = v_change.source_id and c.transaction_id = v_change.transaction_id
    order by c.commit_lsn desc, c.transaction_index desc limit 1;
    if a_edge = 'before' then
      v_moment.excluded := array[v_change.transaction_id];
    end if;
  end if;
  if a_edge = 'before' then
    select min(c.committed_at) - interval '1 microsecond' into v_moment.at
    from "bemi".changes c
    where c.source_id = v_change.source_id and c.transaction_id = v_change.transaction_id
      and (v_change.capture = 'trigger' or c.commit_lsn = v_change.commit_lsn);
  end if;
  v_sources := array(select s.id from "bemi".sources s join "bemi".epochs e on e.source_id = s.id
    where e.epoch = v_moment.epoch and s.capture = 'trigger');
  if v_sources = '{}' then
    return v_moment;
  end if;
  -- Until a key is checked at its transaction's end, two can have it.
  if a_key is not null and not exists (select from pg_index where indrelid = a_relation and indisprimary and not indimmediate) then
    v_moment.excluded := v_moment.excluded || "bemi".cut_transactions(v_moment, v_sources, a_relation, a_key);
  else
    v_moment.excluded := v_moment.excluded || array(
      select distinct c.transaction_id from "bemi".changes c
      where c.source_id = any (v_sources) and (c.commit_lsn, c.transaction_index) > (v_moment.lsn, v_moment.index)
        and exists (select from "bemi".changes earlier
          where earlier.source_id = c.source_id and earlier.transaction_id = c.transaction_id
            and (earlier.commit_lsn, earlier.transaction_index) <= (v_moment.lsn, v_moment.index)));
  end if;
  return v_moment;
end
$$;

-- Whether a row of the log, joined with its epoch, lies at or before a moment, as a condition.
create function "bemi".past_condition(a_moment "bemi".moment) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select case when a_moment.epoch is null then format('changes.committed_at <= %L', a_moment.at)
    else format('((epochs.epoch, changes.commit_lsn, changes.transaction_index) <= (%s, %L::pg_lsn, %s)%s)',
      a_moment.epoch, a_moment.lsn, a_moment.index,
      case when a_moment.excluded <> '{}' then format(' and not (epochs.epoch = %s and changes.transaction_id = any (%L::bigint[]))',
        a_moment.epoch, a_moment.excluded) else '' end)
  end
$$;

-- The same of values, where SQL is not made as text.
create function "bemi".is_past(a_moment "bemi".moment, a_at timestamptz, a_epoch integer, a_lsn pg_lsn, a_index bigint, a_transaction bigint) returns boolean
language sql immutable
return case when (a_moment).epoch is null then a_at <= (a_moment).at
  else (a_epoch, a_lsn, a_index) <= ((a_moment).epoch, (a_moment).lsn, (a_moment).index)
    and not (a_epoch = (a_moment).epoch and a_transaction = any ((a_moment).excluded)) end;

-- The oldest month that retention has left.
create function "bemi".log_start() returns timestamptz
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select min(to_date(right(c.relname, 6), 'YYYYMM')::timestamp at time zone 'UTC')
  from pg_inherits i join pg_class c on c.oid = i.inhrelid
  where i.inhparent = '"bemi".changes'::regclass and c.relname ~ '^changes_p[0-9]{6}$'
$$;

-- The TRUNCATEs of a table, and the markers of what was not captured.
create function "bemi".marks_of(a_spans "bemi".span[], a_since timestamptz) returns setof "bemi".changes
language plpgsql stable set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan
as $$
begin
  return query
    select c.* from unnest(a_spans) as s cross join lateral (
      select * from "bemi".changes m
      where m."table" = s.name and m.schema = s.schema and m.committed_at >= greatest(s.since, a_since) and m.committed_at < s.until
        and m.primary_key is null and m.before = '{}' and m.after = '{}') as c;
end
$$;

-- When a tracked table changed without a change that the log could show, and why.
create function "bemi".breaks_of(a_relation regclass, a_at timestamptz default null) returns table (broken_at timestamptz, reason text)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  v_tracked "bemi".tracked_tables := (select t from "bemi".tracked_tables t where relation = a_relation);
  v_id integer := (select id from "bemi".tables where relation = a_relation);
begin
  return query select b.broken_at, b.reason from "bemi".breaks b where b.table_id = v_id;
  return query
    select m.committed_at, coalesce('a change was not captured (SQLSTATE ' || (m.context #>> '{db,gap,sqlstate}') || ')',
      'a partition was truncated by itself')
    from "bemi".marks_of(array(select row(p.*)::"bemi".span from "bemi".table_spans(v_id) as p), v_tracked.tracked_at) as m
    where m.context -> 'db' ?| '{gap,partition}';
  -- By text, for what was set aside may be no jsonb.
  return query
    select substring(a.change from '"committed_at":"([^"]+)"')::timestamptz, format('a change was set aside (SQLSTATE %s)', a.sqlstate)
    from "bemi".set_aside a
    where exists (select from "bemi".table_spans(v_id) s
      where position(format('"schema":%s,"table":%s', to_json(s.schema), to_json(s.name)) in a.change) > 0);
  if v_tracked.capture = 'wal' or v_tracked.left_wal_at is not null then
    return query
      select bounds.at, format('WAL was lost from %s to %s: %s', g.from_lsn, g.to_lsn, g.reason)
      -- Only what is captured from the WAL is compared with the log, and only with a key can it be.
      from (
        select *, case when v_tracked.capture = 'wal' and cardinality("bemi".key_columns(a_relation)) > 0 then reconciled_at end as compared_at
        from "bemi".gaps
      ) as g, lateral (
        select coalesce(g.from_time, (select c.committed_at from "bemi".changes c
          where c.source_id = g.source_id and c.commit_lsn <= g.from_lsn
          order by c.commit_lsn desc, c.transaction_index desc limit 1), v_tracked.tracked_at) as at
        -- Once the tables were compared with the log, only what was within the gap is lost.
        union all select 'infinity' where g.compared_at is not null
        -- From then on triggers have it all.
        union all select v_tracked.left_wal_at where v_tracked.capture = 'trigger'
      ) as bounds
      where g.detected_at >= v_tracked.tracked_at and (g.compared_at is null or a_at <= g.compared_at
        and a_at > coalesce(g.from_time, v_tracked.tracked_at))
        and (v_tracked.capture = 'wal' or coalesce(g.from_time, v_tracked.tracked_at) < v_tracked.left_wal_at);
  end if;
  return query
    select "bemi".log_start(), 'older changes are past their retention'
    where "bemi".log_start() > v_tracked.tracked_at;
  -- Nobody knows when.
  return query
    select t.at, 'a partition was dropped'
    from (values (v_tracked.tracked_at), ('infinity')) as t (at)
    where exists (select from "bemi".tracked_tables p
      where p.root = a_relation and not exists (select from pg_class where oid = p.relation));
end
$$;

-- How many bytes of WAL the worker has yet to read, also where it has not begun; no row where there is no slot here. What
-- is not above `covered` was read, and is in this log where there is a checkpoint.
create function "bemi".wal_lag(out bytes bigint, out covered pg_lsn, out is_active boolean, out has_checkpoint boolean)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  select greatest(pg_current_wal_flush_lsn() - greatest(c.end_lsn, s.confirmed_flush_lsn), 0)::bigint,
    greatest(c.end_lsn, s.confirmed_flush_lsn), s.active, c.slot is not null
  from pg_replication_slots s left join "bemi".checkpoints c on c.slot = s.slot_name
  where s.database = current_database() and (c.slot is not null or s.slot_name = "bemi".slot_name()) and not pg_is_in_recovery()
  order by c.updated_at desc nulls last limit 1
$$;

-- When the last transaction was committed that the log has from the WAL. What was committed before it is in the log: commits
-- are read in their order.
create function "bemi".last_from_wal() returns timestamptz
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select max(l.committed_at)
  from "bemi".sources s, lateral (select c.committed_at from "bemi".changes c where c.source_id = s.id
    order by c.commit_lsn desc, c.transaction_index desc limit 1) as l
  where s.capture = 'wal'
$$;

-- Up to where the log has to have the WAL for what was committed until a time to be in it; NULL where nothing is
-- captured from the WAL, or the log is past that time already.
create function "bemi".wal_target(a_time timestamptz) returns pg_lsn
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (select from "bemi".tracked_tables where capture = 'wal') or pg_is_in_recovery() then
    return null;
  end if;
  return case when "bemi".last_from_wal() > a_time then null else pg_current_wal_flush_lsn() end;
end
$$;

-- From when on rows are known, in words.
create function "bemi".known_hint(a_relation regclass, a_start timestamptz) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  v_last_break timestamptz := (select max(b.broken_at) from "bemi".breaks_of(a_relation) b);
  v_truncate timestamptz;
begin
  execute format($query$select max(changes.committed_at) from "bemi".changes where %s and changes.operation = 'TRUNCATE'
    and changes.primary_key is null and changes.before = '{}' and changes.after = '{}'$query$,
    "bemi".names_condition((select id from "bemi".tables where relation = a_relation))) into v_truncate;
  if (select capture from "bemi".tracked_tables where relation = a_relation) = 'trigger' and coalesce(v_last_break, '-infinity') < 'infinity'
    or v_truncate > coalesce(v_last_break, '-infinity')
  then
    return format('They are known from %s on.', greatest(v_last_break, v_truncate));
  end if;
  if cardinality("bemi".key_columns(a_relation)) = 0 then
    return format('%s has no primary key: its rows are known from the next TRUNCATE on.', a_relation);
  end if;
  return format('They are known from %s on once a baseline is recorded: bemi track %s --baseline',
    greatest(a_start, v_last_break), a_relation);
end
$$;
