-- Reading the log: what a table, a row, a column was called, and the rows of a table as they were.

-- A table keeps one number through renames and until it is dropped; the log has only the names of the time.
create table "bemi".tables (
  id integer generated always as identity primary key,
  -- NULL once it is dropped.
  relation regclass unique,
  -- The attribute numbers of its key.
  key_numbers smallint[] not null default '{}'
);

create table "bemi".table_names (
  table_id integer not null references "bemi".tables,
  schema text not null,
  name text not null,
  named_at timestamptz not null default clock_timestamp(),
  primary key (schema, name, named_at, table_id)
);

create table "bemi".table_columns (
  table_id integer not null references "bemi".tables,
  number smallint not null,
  name text not null,
  type text not null,
  named_at timestamptz not null default clock_timestamp(),
  dropped_at timestamptz,
  -- What ADD COLUMN gave to the rows that were there.
  fill jsonb,
  primary key (table_id, number, named_at)
);

-- Where a table's rows changed without a change: it was rewritten, or a partition came or went with its rows.
create table "bemi".breaks (
  table_id integer not null references "bemi".tables,
  broken_at timestamptz not null default clock_timestamp(),
  reason text not null
);

-- TRUNCATEs and the markers of what was not captured.
create index changes_marks on "bemi".changes ("table", committed_at) where primary_key is null and before = '{}' and after = '{}';

create index changes_former_key on "bemi".changes ("table", hashtextextended(former_primary_key, 0), committed_at)
  where former_primary_key is not null;

create index changes_transaction on "bemi".changes using brin (transaction_id) with (pages_per_range = 32, autosummarize = on);

-- LSNs of sources in one cluster and timeline are comparable, whoever captured.
create view "bemi".epochs as
  select id as source_id, min(id) over (partition by system_identifier, timeline) as epoch from "bemi".sources;

-- A break ends what a baseline is good for: another one can be made.
create function "bemi".add_break(a_relation regclass, a_reason text) returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
  delete from "bemi".baselines where relation = a_relation;
  insert into "bemi".breaks (table_id, reason) select id, a_reason from "bemi".tables where relation = a_relation
$$;

-- Whether it holds not even a dead row: then nothing that changed it before can be missing.
create function "bemi".is_blank(a_relation regclass) returns boolean
language sql volatile set search_path = pg_catalog, pg_temp
as $$
  select bool_and(c.relkind in ('r', 'p') and (c.relkind = 'p' or pg_relation_size(c.oid) = 0))
  from "bemi".with_descendants(a_relation) as d (relation) join pg_class c on c.oid = d.relation
  where c.oid = a_relation or c.relispartition
$$;

-- Writes down what a tracked table and its columns are called from now on. Called by attach(), for roots.
create function "bemi".remember(a_relation regclass) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  v_id integer;
  v_key smallint[] := coalesce((select array_agg(k.number order by k.n) from pg_index i, unnest(i.indkey::smallint[]) with ordinality as k (number, n)
    where i.indrelid = a_relation and i.indisprimary and k.n <= i.indnkeyatts), '{}');
  v_former_key smallint[];
  v_is_new boolean := false;
  v_column record;
  v_fill jsonb;
  v_now timestamptz := clock_timestamp();
begin
  update "bemi".tables t set relation = null
  where relation is not null and not exists (select from pg_class where oid = t.relation);
  select id, key_numbers into v_id, v_former_key from "bemi".tables where relation = a_relation;
  if v_id is null then
    insert into "bemi".tables (relation, key_numbers) values (a_relation, v_key) returning id into v_id;
    v_is_new := true;
  elsif v_former_key <> v_key then
    update "bemi".tables set key_numbers = v_key where id = v_id;
    perform "bemi".add_break(a_relation, 'its primary key was changed');
  end if;
  insert into "bemi".table_names (table_id, schema, name, named_at)
  select v_id, n.nspname, c.relname, v_now
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where c.oid = a_relation and format('%I.%I', n.nspname, c.relname) is distinct from
    (select format('%I.%I', t.schema, t.name) from "bemi".table_names t where t.table_id = v_id order by t.named_at desc limit 1);
  update "bemi".table_columns t set dropped_at = v_now
  where t.table_id = v_id and t.dropped_at is null
    and not exists (select from pg_attribute a where a.attrelid = a_relation and a.attnum = t.number and not a.attisdropped);
  for v_column in
    select a.attnum, a.attname::text as name, format_type(a.atttypid, a.atttypmod) as type, known.name as former_name, known.type as former_type,
      to_jsonb(a.attmissingval) -> 0 as missing, a.attidentity <> '' or a.atthasdef and a.attgenerated = '' as has_default
    from pg_attribute a left join lateral (
      select t.name, t.type from "bemi".table_columns t
      where t.table_id = v_id and t.number = a.attnum order by t.named_at desc limit 1) as known on true
    where a.attrelid = a_relation and a.attnum > 0 and not a.attisdropped
      and (a.attname::text, format_type(a.atttypid, a.atttypmod)) is distinct from (known.name, known.type)
  loop
    v_fill := null;
    if not v_is_new and v_column.former_name is null then
      v_fill := v_column.missing;
      if v_fill is null and v_column.has_default and not "bemi".is_blank(a_relation) then
        perform "bemi".add_break(a_relation, format('the column %I was added with a value for each row', v_column.name));
      end if;
    elsif v_column.former_type <> v_column.type and not "bemi".is_blank(a_relation) then
      perform "bemi".add_break(a_relation, format('the type of the column %I was changed', v_column.name));
    end if;
    insert into "bemi".table_columns (table_id, number, name, type, named_at, fill)
    select v_id, v_column.attnum, v_column.name, v_column.type, v_now,
      coalesce(v_fill, (select t.fill from "bemi".table_columns t
        where t.table_id = v_id and t.number = v_column.attnum order by t.named_at desc limit 1));
  end loop;
  if exists (select from "bemi".tracked_tables where relation = a_relation and tracked_at = '-infinity') then
    -- The table is locked by now: from here on every write of others is captured.
    update "bemi".tracked_tables set tracked_at = clock_timestamp() where relation = a_relation;
    if "bemi".is_blank(a_relation) then
      insert into "bemi".baselines (relation, started_at, finished_at)
      select relation, tracked_at, tracked_at from "bemi".tracked_tables where relation = a_relation
      on conflict do nothing;
    end if;
  end if;
end
$$;

-- The names of a table, each with the time in which it was this table's and no other's.
create function "bemi".table_spans(a_table_id integer)
returns table (schema text, name text, since timestamptz, until timestamptz)
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select own.schema, own.name,
    case when exists (select from "bemi".table_names o where o.schema = own.schema and o.name = own.name
      and o.table_id <> own.table_id and o.named_at < own.named_at) then own.named_at else '-infinity' end,
    coalesce((select min(o.named_at) from "bemi".table_names o where o.schema = own.schema and o.name = own.name
      and o.table_id <> own.table_id and o.named_at > own.named_at), 'infinity')
  from "bemi".table_names own where own.table_id = a_table_id
  union
  -- A rename that nothing noticed, where the role may not create an event trigger.
  select n.nspname, c.relname, '-infinity', 'infinity'
  from "bemi".tables t join pg_class c on c.oid = t.relation join pg_namespace n on n.oid = c.relnamespace
  where t.id = a_table_id and not exists (select from "bemi".table_names o where o.schema = n.nspname and o.name = c.relname)
$$;

-- The same as a condition on rows of the log.
create function "bemi".names_condition(a_table_id integer) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select '(' || string_agg(format('changes."table" = %L and changes.schema = %L', s.name, s.schema)
      || case when s.since > '-infinity' then format(' and changes.committed_at >= %L', s.since) else '' end
      || case when s.until < 'infinity' then format(' and changes.committed_at < %L', s.until) else '' end, ' or ') || ')'
  from "bemi".table_spans(a_table_id) as s
$$;

-- The table that a name means: the one that has it, else the last that had it.
create function "bemi".table_number(a_table text) returns integer
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    (select id from "bemi".tables where relation = to_regclass(a_table)),
    (select table_id from "bemi".table_names
      where a_table in (name, schema || '.' || name, quote_ident(name), quote_ident(schema) || '.' || quote_ident(name))
      order by named_at desc limit 1))
$$;

-- An image of a row in today's columns: renamed ones under their present name, dropped ones left out, added ones with
-- what ADD COLUMN gave them. A name belongs to the column that had it at the time.
create function "bemi".shape_image(a_table_id integer, a_image jsonb, a_at timestamptz) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_object_agg(today.name, coalesce(found.value, today.fill)) filter (where found.value is not null or today.fill is not null), '{}')
  from (
    select distinct on (t.number) t.number, t.name, t.fill
    from "bemi".table_columns t where t.table_id = a_table_id and t.dropped_at is null
    order by t.number, t.named_at desc
  ) as today left join lateral (
    select a_image -> t.name as value
    from "bemi".table_columns t
    where t.table_id = a_table_id and t.number = today.number and a_image ? t.name
      and t.number = (select o.number from "bemi".table_columns o
        where o.table_id = a_table_id and o.name = t.name
        order by o.named_at <= a_at desc, case when o.named_at <= a_at then o.named_at end desc, o.named_at limit 1)
    order by t.named_at <= a_at desc, t.named_at desc
    limit 1
  ) as found on true
$$;

-- The keys whose value differs, each with what it was (old) and is (new); one that is missing has none.
create function "bemi".diff(a_before jsonb, a_after jsonb) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_object_agg(k.key, case when a_before ? k.key then jsonb_build_object('old', a_before -> k.key) else '{}' end
    || case when a_after ? k.key then jsonb_build_object('new', a_after -> k.key) else '{}' end), '{}')
  from (select jsonb_object_keys(a_before) as key union select jsonb_object_keys(a_after)) as k
  where (a_before -> k.key) is distinct from (a_after -> k.key)
$$;

-- A moment in the log: a clock time, or (epoch not NULL) a place in the total order, without the transactions excluded.
create type "bemi".moment as (at timestamptz, epoch integer, lsn pg_lsn, index bigint, excluded bigint[]);

create function "bemi".moment_at(a_time timestamptz) returns "bemi".moment
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select row(a_time, null, null, null, null)::"bemi".moment
$$;

-- Just before or just after a transaction, which is named by one of its changes. From the WAL, transactions are in the
-- order of their commits. By triggers, they are taken in the order of their last changes: whatever depends on another
-- comes after it, and none is cut in two.
create function "bemi".moment_of(a_change uuid, a_edge text default 'after') returns "bemi".moment
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
  if v_sources <> '{}' then
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

-- The oldest month that retention has left.
create function "bemi".log_start() returns timestamptz
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select min(to_date(right(c.relname, 6), 'YYYYMM')::timestamp at time zone 'UTC')
  from pg_inherits i join pg_class c on c.oid = i.inhrelid
  where i.inhparent = '"bemi".changes'::regclass and c.relname ~ '^changes_p[0-9]{6}$'
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
  return query execute format($query$
    select changes.committed_at, coalesce('a change was not captured (SQLSTATE ' || (changes.context #>> '{db,gap,sqlstate}') || ')',
      'a partition was truncated by itself')
    from "bemi".changes
    where %s and changes.committed_at >= %L and changes.primary_key is null and changes.before = '{}' and changes.after = '{}'
      and changes.context -> 'db' ?| '{gap,partition}'$query$, "bemi".names_condition(v_id), v_tracked.tracked_at);
  -- By text, for what was set aside may be no jsonb.
  return query
    select substring(a.change from '"committed_at":"([^"]+)"')::timestamptz, format('a change was set aside (SQLSTATE %s)', a.sqlstate)
    from "bemi".set_aside a
    where exists (select from "bemi".table_spans(v_id) s
      where position(format('"schema":%s,"table":%s', to_json(s.schema), to_json(s.name)) in a.change) > 0);
  if v_tracked.capture = 'wal' then
    return query
      select bounds.at, format('WAL was lost from %s to %s: %s', g.from_lsn, g.to_lsn, g.reason)
      from "bemi".gaps g, lateral (
        select coalesce(g.from_time, (select c.committed_at from "bemi".changes c
          where c.source_id = g.source_id and c.commit_lsn <= g.from_lsn
          order by c.commit_lsn desc, c.transaction_index desc limit 1), v_tracked.tracked_at) as at
        -- Once the tables were compared with the log, only what was within the gap is lost.
        union all select 'infinity' where g.reconciled_at is not null
      ) as bounds
      where g.detected_at >= v_tracked.tracked_at and (g.reconciled_at is null or a_at <= g.reconciled_at
        and a_at > coalesce(g.from_time, v_tracked.tracked_at));
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

-- How many bytes of WAL the worker has yet to read, also where it has not begun; NULL where there is no slot here. What
-- is not above `covered` is in the log, or was nothing of ours.
create function "bemi".wal_lag(out bytes bigint, out covered pg_lsn, out is_active boolean)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  select greatest(pg_current_wal_flush_lsn() - greatest(c.end_lsn, s.confirmed_flush_lsn), 0)::bigint,
    greatest(c.end_lsn, s.confirmed_flush_lsn), s.active
  from pg_replication_slots s left join "bemi".checkpoints c on c.slot = s.slot_name
  where s.database = current_database() and (c.slot is not null or s.slot_name = "bemi".slot_name()) and not pg_is_in_recovery()
  order by c.updated_at desc nulls last limit 1
$$;

-- The primary key of a row as the log writes it, as an expression over the alias bemi_row.
create function "bemi".key_expression(a_keys text[]) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select case cardinality(a_keys) when 0 then 'null::text'
    when 1 then format('(to_jsonb(bemi_row.%I) #>> ''{}'')', a_keys[1])
    else format('jsonb_build_array(%s)::text', (select string_agg(format('bemi_row.%I', k.name), ', ' order by k.n)
      from unnest(a_keys) with ordinality as k (name, n))) end
$$;

-- The rows of a tracked table (with a key, that row alone) as they were at a moment, as jsonb of today's columns.
-- Forwards from a baseline or a TRUNCATE, after which everything is known; else backwards from the live table, where
-- what is live and what is in the log are seen at once: with capture by triggers. Where neither will do, an error
-- says from when on it is known.
create function "bemi".images_as_of(a_relation regclass, a_moment "bemi".moment, a_key text default null)
returns table (primary_key text, image jsonb, imaged_at timestamptz)
language plpgsql stable set search_path = pg_catalog, pg_temp
set datestyle = 'ISO, MDY' set intervalstyle = 'postgres' set extra_float_digits = 1
as $$
declare
  v_tracked "bemi".tracked_tables := (select t from "bemi".tracked_tables t where relation = a_relation and root = a_relation);
  v_id integer := (select id from "bemi".tables where relation = a_relation);
  v_keys text[] := "bemi".key_columns(a_relation);
  v_baseline "bemi".baselines := (select b from "bemi".baselines b where relation = a_relation);
  v_past text := "bemi".past_condition(a_moment);
  v_from text;
  v_last_break record;
  v_next_break record;
  v_truncate record;
  v_since text;
  v_start timestamptz;
  v_is_blank boolean := false;
  v_is_complete boolean;
  v_next_truncate timestamptz;
  v_effects text;
  v_shaped text := '%s';
  v_changed_shape timestamptz;
  v_columns text[];
  v_live text;
  v_has_moves boolean;
begin
  if v_tracked is null then
    raise exception using errcode = 'BE001', message = format('%s is not tracked', a_relation),
      hint = case when pg_partition_root(a_relation) <> a_relation then format('Ask its root, %s.', pg_partition_root(a_relation))
        else 'Its history begins when it is tracked: bemi track' end;
  end if;
  if a_moment.at is null then
    raise null_value_not_allowed using message = 'As of when? The time is null';
  end if;
  if a_key is not null and v_keys = '{}' then
    raise exception using errcode = 'BE001', message = format('%s has no primary key to look a row up by', a_relation);
  end if;
  if a_moment.at < v_tracked.tracked_at then
    raise exception using errcode = 'BE001',
      message = format('The rows of %s as of %s are not known', a_relation, a_moment.at),
      hint = format('They are known from %s on, when it came to be tracked.', v_tracked.tracked_at);
  end if;
  if a_moment.at < "bemi".log_start() then
    raise exception using errcode = 'BE001',
      message = format('The rows of %s as of %s are not known: older changes are past their retention', a_relation, a_moment.at),
      hint = "bemi".known_hint(a_relation, v_tracked.tracked_at);
  end if;

  v_from := format('from "bemi".changes join "bemi".epochs on epochs.source_id = changes.source_id where %s and changes.committed_at >= %L',
    "bemi".names_condition(v_id), v_tracked.tracked_at);
  select b.* into v_last_break from "bemi".breaks_of(a_relation, a_moment.at) b where b.broken_at <= a_moment.at order by b.broken_at desc limit 1;
  select b.* into v_next_break from "bemi".breaks_of(a_relation, a_moment.at) b where b.broken_at > a_moment.at order by b.broken_at limit 1;
  v_start := greatest(v_tracked.tracked_at, v_last_break.broken_at);
  v_since := case when v_last_break.broken_at is null then 'true' else format('changes.committed_at > %L', v_start) end;
  execute format($query$
    select epochs.epoch, changes.commit_lsn, changes.transaction_index, changes.committed_at %s and %s and %s
      and changes.operation = 'TRUNCATE' and changes.primary_key is null and changes.before = '{}' and changes.after = '{}'
      and not coalesce(changes.context -> 'db' ?| '{gap,partition}', false)
    order by 1 desc, 2 desc, 3 desc limit 1$query$, v_from, v_past, v_since) into v_truncate;
  if v_truncate.epoch is not null then
    v_since := format('(epochs.epoch, changes.commit_lsn, changes.transaction_index) > (%s, %L::pg_lsn, %s)',
      v_truncate.epoch, v_truncate.commit_lsn, v_truncate.transaction_index);
  end if;
  v_is_blank := v_truncate.epoch is not null
    or coalesce(v_baseline.finished_at = v_start, false);
  execute format('select min(changes.committed_at) %s and not (%s) and changes.operation = ''TRUNCATE''
    and changes.primary_key is null and changes.before = ''{}'' and changes.after = ''{}''', v_from, v_past) into v_next_truncate;
  v_is_complete := v_is_blank
    -- A baseline tells of the time before it too, as far as nothing came between.
    or v_keys <> '{}' and v_baseline.finished_at is not null and v_baseline.started_at >= v_start and v_baseline.skipped_count = 0
      and (v_baseline.finished_at <= a_moment.at or v_baseline.finished_at < least(v_next_break.broken_at, v_next_truncate, 'infinity'));

  -- Images of other shapes than today's are brought into it.
  select max(greatest(c.named_at, c.dropped_at)) into v_changed_shape
  from "bemi".table_columns c where c.table_id = v_id
    and (c.dropped_at is not null or c.named_at > (select min(f.named_at) from "bemi".table_columns f where f.table_id = v_id));
  if v_changed_shape is not null then
    v_columns := array(select a.attname::text from pg_attribute a
      where a.attrelid = a_relation and a.attnum > 0 and not a.attisdropped and a.attgenerated = '' and a.attname <> all (v_tracked.masked));
    v_shaped := format('case when bemi_at >= %L and bemi_image ?& %L then bemi_image else "bemi".shape_image(%s, bemi_image, bemi_at) end',
      v_changed_shape, v_columns, v_id);
  else
    v_shaped := 'bemi_image';
  end if;

  -- What each change did to each key that it names: before and after are NULL where there was, or is, no row.
  v_effects := format($query$
    select changes.primary_key collate "C" as bemi_key, epochs.epoch, changes.commit_lsn, changes.transaction_index, changes.transaction_id,
      changes.former_primary_key is not null as is_move, %2$s as is_past, changes.committed_at,
      case changes.operation when 'UPDATE' then case when changes.former_primary_key is null then changes.before end
        when 'DELETE' then changes.before when 'SNAPSHOT' then changes.after end as before,
      case when changes.operation <> 'DELETE' then changes.after end as after
    %1$s and changes.primary_key is not null %3$s and %%1$s
    union all
    select changes.former_primary_key collate "C", epochs.epoch, changes.commit_lsn, changes.transaction_index, changes.transaction_id,
      true, %2$s, changes.committed_at, changes.before, null
    %1$s and changes.former_primary_key is not null %4$s and %%1$s$query$,
    v_from, v_past,
    case when a_key is not null then format('and hashtextextended(changes.primary_key, 0) = hashtextextended(%1$L, 0) and changes.primary_key = %1$L', a_key) end,
    case when a_key is not null then format('and hashtextextended(changes.former_primary_key, 0) = hashtextextended(%1$L, 0) and changes.former_primary_key = %1$L', a_key) end);
  execute format('select exists (select %s and changes.former_primary_key is not null)', v_from) into v_has_moves;

  if v_is_complete and v_keys <> '{}' then
    v_effects := "bemi".effects_without_overtaken(
      format(v_effects, case when v_is_blank or v_baseline.finished_at <= a_moment.at then format('%s and %s', v_since, v_past)
        -- What came after a break may be of rows that came in it.
        else format('%s and changes.committed_at < %L', v_since, coalesce(v_next_break.broken_at, 'infinity')) end),
      v_has_moves, v_tracked.ignored);
    return query execute format($query$
      select bemi_key, %2$s, bemi_at
      from (
        select distinct on (bemi_key) bemi_key, is_past, case when is_past then after else before end as bemi_image, committed_at as bemi_at
        from (%1$s) as effects
        order by bemi_key, is_past desc,
          case when is_past then epoch end desc, case when is_past then commit_lsn end desc, case when is_past then transaction_index end desc,
          epoch, commit_lsn, transaction_index
      ) as last
      where bemi_image is not null$query$, v_effects, v_shaped);
    return;
  end if;

  if v_is_complete or v_tracked.capture = 'trigger' and v_next_break.broken_at is null and v_next_truncate is null then
    select format('select %s collate "C" as bemi_key, to_jsonb(bemi_row.*) - %L::text[] as bemi_image from %s%s as bemi_row where %s',
      "bemi".key_expression(v_keys), v_tracked.masked, case c.relkind when 'p' then '' else 'only ' end, a_relation,
      case when a_key is null then 'true' else format('(%s) = (%s)',
        (select string_agg(format('bemi_row.%I', k.name), ', ' order by k.n) from unnest(v_keys) with ordinality as k (name, n)),
        "bemi".key_literals(a_relation, v_keys, case cardinality(v_keys) when 1 then array[a_key]
          else array(select value from jsonb_array_elements_text(a_key::jsonb) with ordinality as e (value, n) order by n) end)) end)
    into v_live from pg_class c where c.oid = a_relation;
    if v_keys <> '{}' then
      v_effects := "bemi".effects_without_overtaken(format(v_effects, format('not (%s)', v_past)), v_has_moves, v_tracked.ignored);
      return query execute format($query$
        with first as materialized (
          select distinct on (bemi_key) bemi_key, before as bemi_image, committed_at as bemi_at
          from (%1$s) as effects
          order by bemi_key, epoch, commit_lsn, transaction_index
        )
        select bemi_key, %2$s, bemi_at from first where bemi_image is not null
        union all
        select live.bemi_key, live.bemi_image, clock_timestamp() from (%3$s) as live
        where not exists (select from first where first.bemi_key = live.bemi_key)$query$, v_effects, v_shaped, v_live);
      return;
    end if;
    -- Without a key, rows are counted: what is there and what went, less what came.
    return query execute format($query$
      select null::text, "bemi".repeatable_image(counted.bemi_image, counted.times, %4$L), clock_timestamp()
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
      v_from, v_shaped, case when not v_is_complete then format('union all select bemi_image, clock_timestamp(), 1 from (%s) as live', v_live) end,
      a_relation::text, case when v_is_complete then -1 else 1 end,
      case when v_is_complete then format('%s and %s', v_since, v_past) else format('not (%s)', v_past) end);
    return;
  end if;

  raise exception using errcode = 'BE001',
    message = format('The rows of %s as of %s are not all known%s', a_relation, a_moment.at,
      coalesce(': ' || coalesce(v_last_break.reason || ' at ' || v_last_break.broken_at,
        v_next_break.reason || ' at ' || v_next_break.broken_at), '')),
    hint = "bemi".known_hint(a_relation, v_start);
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

-- A row of today's type for each row as it was. Dropped columns are left out, added ones have the value that they were
-- added with, masked ones are NULL; a notice says so.
create function "bemi".rows_as_of(a_row anyelement, a_moment "bemi".moment, a_key text) returns setof anyelement
language plpgsql stable set search_path = pg_catalog, pg_temp
set datestyle = 'ISO, MDY' set intervalstyle = 'postgres' set extra_float_digits = 1
as $$
declare
  v_relation regclass := (select typrelid from pg_type where oid = pg_typeof(a_row)::oid and typrelid <> 0);
  v_tracked "bemi".tracked_tables := (select t from "bemi".tracked_tables t where relation = v_relation);
  v_columns text;
  v_names text;
  v_last timestamptz;
  v_lag record;
begin
  if v_relation is null then
    raise wrong_object_type using message = format('%s is no table''s type', pg_typeof(a_row)), hint = 'Write null::todos, with the table''s name.';
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
  where a.attrelid = v_relation and a.attnum > 0 and not a.attisdropped;
  select string_agg(format('%I %s', c.name, case when c.dropped_at > a_moment.at then 'was dropped' else 'was added' end), ', ' order by c.number) into v_names
  from "bemi".table_columns c join "bemi".tables t on t.id = c.table_id
  where t.relation = v_relation and (c.dropped_at > a_moment.at and c.named_at <= a_moment.at
    or c.dropped_at is null and c.named_at > a_moment.at
      and not exists (select from "bemi".table_columns f where f.table_id = c.table_id and f.number = c.number and f.named_at < c.named_at));
  if v_names is not null then
    raise notice 'bemi: columns of % since: %', v_relation, v_names;
  end if;
  if v_tracked.capture = 'wal' then
    select max(c.committed_at) into v_last from (
      select l.committed_at from "bemi".sources s, lateral (select c.committed_at from "bemi".changes c
        where c.source_id = s.id order by c.commit_lsn desc, c.transaction_index desc limit 1) as l
      where s.capture = 'wal') as c;
    select * into v_lag from "bemi".wal_lag();
    if a_moment.epoch is null and a_moment.at > coalesce(v_last, '-infinity') and v_lag.bytes > (case when v_lag.is_active then 1048576 else 0 end) then
      raise warning 'bemi: the worker has % bytes of WAL yet to read: what was committed after % may be missing', v_lag.bytes, coalesce(v_last, v_tracked.tracked_at)
        using hint = 'Run bemi worker, or bemi-poll --once.';
    end if;
  end if;
  return query execute format(
    'select %s from "bemi".images_as_of($1, $2, $3) as bemi_images, lateral jsonb_populate_record(null::%s, bemi_images.image) as bemi_row',
    v_columns, v_relation) using v_relation, a_moment, a_key;
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

-- Whether a row is its image put into its type, and nothing besides: see rows_as_of().
create function "bemi".is_plain(a_relation oid) returns boolean
language sql stable
return not exists (select from pg_attribute a where a.attrelid = a_relation and a.attnum > 0 and not a.attisdropped
  and (a.attgenerated = 's' or a.atttypid in (select t.oid from pg_type t where t.typname = 'hstore')));

-- The rows of a table, or the one with this key, as they were at a time: select * from as_of(null::todos, '2026-11-01 12:00').
create function "bemi".as_of(a_row anyelement, a_time timestamptz, a_key text default null) returns setof anyelement
language plpgsql stable set search_path = pg_catalog, pg_temp set datestyle = 'ISO, MDY' set intervalstyle = 'postgres'
as $$
declare
  v_relation oid;
  v_last "bemi".last_image;
begin
  if a_key is not null and a_row is null then
    v_relation := to_regclass(pg_typeof(a_row)::text);
    v_last := "bemi".last_image(v_relation, a_key, a_time);
    -- Of columns and of a worker's lag rows_as_of() has something to say.
    if v_last.is_known and not v_last.is_reshaped and v_last.capture = 'trigger' and "bemi".is_plain(v_relation) then
      if v_last.image is not null then
        return next jsonb_populate_record(a_row, v_last.image);
      end if;
      return;
    end if;
  end if;
  return query execute 'select * from "bemi".rows_as_of($1, "bemi".moment_at($2), $3)' using a_row, a_time, a_key;
end
$$;

-- The same just before or just after a transaction, which is named by the id of one of its changes.
create function "bemi".as_of_change(a_row anyelement, a_change uuid, a_edge text default 'after', a_key text default null) returns setof anyelement
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select r from "bemi".rows_as_of(a_row, "bemi".moment_of(a_change, a_edge), a_key) as r
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

-- A place in the total order, across sources.
create type "bemi".place as (epoch integer, lsn pg_lsn, index bigint);

-- Where one row lived under a key: from its birth there (a CREATE, or an UPDATE of the key) until it went.
create type "bemi".stay as (key text, since "bemi".place, until "bemi".place);

-- The stays that led to a place (back), or that came of it (forth), along the changes of a row's key.
create function "bemi".stays(a_names text, a_key text, a_place "bemi".place, a_is_back boolean) returns setof "bemi".stay
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  v_stay "bemi".stay := row(a_key, case when not a_is_back then a_place end, case when a_is_back then a_place end);
  v_next record;
begin
  for i in 1..10000 loop
    execute format($query$
      select row(epochs.epoch, changes.commit_lsn, changes.transaction_index)::"bemi".place as place, changes.former_primary_key, changes.primary_key
      from "bemi".changes join "bemi".epochs on epochs.source_id = changes.source_id
      where %1$s and row(epochs.epoch, changes.commit_lsn, changes.transaction_index)::"bemi".place %2$s $2
        and (%3$s) order by 1 %4$s limit 1$query$, a_names, case when a_is_back then '<' else '>' end,
      case when a_is_back then 'hashtextextended(changes.primary_key, 0) = hashtextextended($1, 0) and changes.primary_key = $1
          and (changes.operation = ''CREATE'' or changes.former_primary_key is not null)'
        else 'hashtextextended(changes.former_primary_key, 0) = hashtextextended($1, 0) and changes.former_primary_key = $1
          or hashtextextended(changes.primary_key, 0) = hashtextextended($1, 0) and changes.primary_key = $1 and changes.operation = ''DELETE''' end,
      case when a_is_back then 'desc' else '' end)
    into v_next using v_stay.key, case when a_is_back then v_stay.until else v_stay.since end;
    if a_is_back then
      v_stay.since := v_next.place;
    else
      v_stay.until := v_next.place;
    end if;
    return next v_stay;
    exit when v_next.former_primary_key is null;
    v_stay := case when a_is_back then row(v_next.former_primary_key, null, v_next.place) else row(v_next.primary_key, v_next.place, null) end;
  end loop;
end
$$;

-- Every change of one row, oldest first: of its key, under the keys that it had before and has had since, and under
-- every name of the table. A TRUNCATE is the end of a row that was there.
create function "bemi".history(a_table text, a_key text) returns setof "bemi".changes
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  v_names text := coalesce("bemi".names_condition("bemi".table_number(a_table)),
    format('%L in (changes."table", changes.schema || ''.'' || changes."table")', a_table));
  v_stays "bemi".stay[] := array[row(a_key, null, null)::"bemi".stay];
  v_move record;
begin
  for v_move in execute format($query$
    select row(epochs.epoch, changes.commit_lsn, changes.transaction_index)::"bemi".place as place, changes.former_primary_key, changes.primary_key
    from "bemi".changes join "bemi".epochs on epochs.source_id = changes.source_id
    where %s and changes.former_primary_key is not null and (
      hashtextextended(changes.primary_key, 0) = hashtextextended($1, 0) and changes.primary_key = $1
      or hashtextextended(changes.former_primary_key, 0) = hashtextextended($1, 0) and changes.former_primary_key = $1)$query$, v_names) using a_key
  loop
    if v_move.primary_key = a_key then
      v_stays := v_stays || array(select s from "bemi".stays(v_names, v_move.former_primary_key, v_move.place, true) as s);
    else
      v_stays := v_stays || array(select s from "bemi".stays(v_names, v_move.primary_key, v_move.place, false) as s);
    end if;
  end loop;
  return query execute format($query$
    with found as (
      select distinct row(epochs.epoch, changes.commit_lsn, changes.transaction_index)::"bemi".place as place, changes as change, false as is_end
      from unnest($1) as stay, "bemi".changes join "bemi".epochs on epochs.source_id = changes.source_id
      where %1$s and hashtextextended(changes.primary_key, 0) = hashtextextended(stay.key, 0) and changes.primary_key = stay.key
        and (stay.since is null or row(epochs.epoch, changes.commit_lsn, changes.transaction_index)::"bemi".place >= stay.since)
        and (stay.until is null or row(epochs.epoch, changes.commit_lsn, changes.transaction_index)::"bemi".place <= stay.until)
    ), ends as (
      select row(epochs.epoch, changes.commit_lsn, changes.transaction_index)::"bemi".place as place, changes as change, true as is_end
      from "bemi".changes join "bemi".epochs on epochs.source_id = changes.source_id
      where %1$s and changes.operation = 'TRUNCATE' and changes.primary_key is null and changes.before = '{}' and changes.after = '{}'
    ), ordered as (
      select o.*, lag((o.change).operation) over (order by o.place) as former_operation
      from (select * from found union all select * from ends) as o
    )
    select (change).* from ordered
    where not is_end or former_operation in ('CREATE', 'UPDATE', 'SNAPSHOT')
    order by place$query$, v_names) using v_stays;
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
