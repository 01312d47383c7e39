-- Reading the log: what a table, a row, a column was called, and every change of one row.

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

-- LSNs of sources in one cluster and timeline are comparable, whoever captured; but not those of its incarnations.
create view "bemi".epochs as
  select id as source_id, min(id) over (partition by system_identifier, timeline, incarnation) as epoch from "bemi".sources;

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

-- Their numbers are given out again.
create function "bemi".forget_dropped() returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
  update "bemi".tables t set relation = null
  where relation is not null and not exists (select from pg_class where oid = t.relation)
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
  perform "bemi".forget_dropped();
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

-- A name of a table, with the time in which it was this table's: see table_spans().
create type "bemi".span as (schema text, name text, since timestamptz, until timestamptz);

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
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  v_id integer;
begin
  begin
    v_id := (select id from "bemi".tables where relation = to_regclass(a_table));
  exception when invalid_name or syntax_error or feature_not_supported then
    -- What is no name in SQL, such as my todos or a.b.c, may be one in the log.
    null;
  end;
  return coalesce(v_id, (select table_id from "bemi".table_names
    where a_table in (name, schema || '.' || name, quote_ident(name), quote_ident(schema) || '.' || quote_ident(name))
    order by named_at desc limit 1));
end
$$;

-- Whether the key of a table is of several columns, unless it is known not to be: then it is a JSON array, which can be
-- spelled in several ways.
create function "bemi".has_wide_key(a_schema text, a_table text) returns boolean
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  select not exists (select from "bemi".table_names n join "bemi".tables t on t.id = n.table_id
    where n.schema = a_schema and n.name = a_table and cardinality(t.key_numbers) = 1)
$$;

-- A JSON array as the log spells it.
create function "bemi".spelled_key(a_key text) returns text
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
begin
  return a_key::jsonb::text;
exception when others then
  return a_key;
end
$$;

-- An image of a row in today's columns: renamed ones under their present name, dropped ones left out, added ones with
-- what ADD COLUMN gave them. A name belongs to the column that had it at the time.
create function "bemi".shape_image(a_columns "bemi".table_columns[], a_image jsonb, a_at timestamptz) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_object_agg(today.name, coalesce(found.value, today.fill)) filter (where found.value is not null or today.fill is not null), '{}')
  from (
    select distinct on (t.number) t.number, t.name, t.fill
    from unnest(a_columns) as t where t.dropped_at is null
    order by t.number, t.named_at desc
  ) as today left join lateral (
    select a_image -> t.name as value
    from unnest(a_columns) as t
    where t.number = today.number and a_image ? t.name
      and t.number = (select o.number from unnest(a_columns) as o
        where o.name = t.name
        order by o.named_at <= a_at desc, case when o.named_at <= a_at then o.named_at end desc, o.named_at limit 1)
    order by t.named_at <= a_at desc, t.named_at desc
    limit 1
  ) as found on true
$$;

create function "bemi".shape_image(a_table_id integer, a_image jsonb, a_at timestamptz) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select "bemi".shape_image(array(select t from "bemi".table_columns t where t.table_id = a_table_id), a_image, a_at)
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

-- A place in the total order, across sources.
create type "bemi".place as (epoch integer, lsn pg_lsn, index bigint);

-- Where one row lived under a key: from its birth there (a CREATE, or an UPDATE of the key) until it went.
create type "bemi".stay as (key text, since "bemi".place, until "bemi".place);

-- The names under which the log has a table: of one that is not known here, as in a log that is in another database, its
-- name with or without a schema.
create function "bemi".spans_named(a_table text) returns "bemi".span[]
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  v_id integer := "bemi".table_number(a_table);
begin
  if v_id is not null then
    return array(select row(s.*)::"bemi".span from "bemi".table_spans(v_id) as s);
  end if;
  return array(
    select row(null, a_table, '-infinity', 'infinity')::"bemi".span
    union all
    select row(left(a_table, dot - 1), substr(a_table, dot + 1), '-infinity', 'infinity')::"bemi".span
    from generate_series(1, length(a_table)) as dot where substr(a_table, dot, 1) = '.');
end
$$;

-- The stays that led to a place (back), or that came of it (forth), along the changes of a row's key.
create function "bemi".stays(a_spans "bemi".span[], a_key text, a_place "bemi".place, a_is_back boolean) returns setof "bemi".stay
language plpgsql stable set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan
as $$
declare
  v_stay "bemi".stay := row(a_key, case when not a_is_back then a_place end, case when a_is_back then a_place end);
  v_next record;
begin
  for i in 1..10000 loop
    if a_is_back then
      select row(e.epoch, c.commit_lsn, c.transaction_index)::"bemi".place as place, c.former_primary_key, c.primary_key into v_next
      from unnest(a_spans) as s cross join lateral (select * from "bemi".changes k
        where k."table" = s.name and (k.schema = s.schema or s.schema is null) and k.committed_at >= s.since and k.committed_at < s.until
          and hashtextextended(k.primary_key, 0) = hashtextextended(v_stay.key, 0) and k.primary_key = v_stay.key
          and (k.operation = 'CREATE' or k.former_primary_key is not null)) as c
        join "bemi".epochs e on e.source_id = c.source_id
      where row(e.epoch, c.commit_lsn, c.transaction_index)::"bemi".place < v_stay.until
      order by 1 desc limit 1;
      v_stay.since := v_next.place;
    else
      select row(e.epoch, c.commit_lsn, c.transaction_index)::"bemi".place as place, c.former_primary_key, c.primary_key into v_next
      from unnest(a_spans) as s cross join lateral (select * from "bemi".changes k
        where k."table" = s.name and (k.schema = s.schema or s.schema is null) and k.committed_at >= s.since and k.committed_at < s.until
          and (hashtextextended(k.former_primary_key, 0) = hashtextextended(v_stay.key, 0) and k.former_primary_key = v_stay.key
            or hashtextextended(k.primary_key, 0) = hashtextextended(v_stay.key, 0) and k.primary_key = v_stay.key and k.operation = 'DELETE')) as c
        join "bemi".epochs e on e.source_id = c.source_id
      where row(e.epoch, c.commit_lsn, c.transaction_index)::"bemi".place > v_stay.since
      order by 1 limit 1;
      v_stay.until := v_next.place;
    end if;
    return next v_stay;
    exit when v_next.former_primary_key is null;
    v_stay := case when a_is_back then row(v_next.former_primary_key, null, v_next.place) else row(v_next.primary_key, v_next.place, null) end;
  end loop;
end
$$;

-- Every change of one row, oldest first: of its key, under the keys that it had before and has had since, and under
-- every name of the table. A TRUNCATE is the end of a row that was there. The plans are kept, since making them takes
-- longer than reading.
create function "bemi".history(a_table text, a_key text) returns setof "bemi".changes
language plpgsql stable set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan
as $$
declare
  v_spans "bemi".span[] := "bemi".spans_named(a_table);
  v_stays "bemi".stay[] := array[row(a_key, null, null)::"bemi".stay];
  v_move record;
begin
  if a_key like '[%' and not exists (select from unnest(v_spans) as s where not "bemi".has_wide_key(s.schema, s.name)) then
    a_key := "bemi".spelled_key(a_key);
    v_stays := array[row(a_key, null, null)::"bemi".stay];
  end if;
  for v_move in
    select row(e.epoch, c.commit_lsn, c.transaction_index)::"bemi".place as place, c.former_primary_key, c.primary_key
    from unnest(v_spans) as s cross join lateral (select * from "bemi".changes k
      where k."table" = s.name and (k.schema = s.schema or s.schema is null) and k.committed_at >= s.since and k.committed_at < s.until
        and k.former_primary_key is not null
        and (hashtextextended(k.primary_key, 0) = hashtextextended(a_key, 0) and k.primary_key = a_key
          or hashtextextended(k.former_primary_key, 0) = hashtextextended(a_key, 0) and k.former_primary_key = a_key)) as c
      join "bemi".epochs e on e.source_id = c.source_id
    order by case when c.primary_key = a_key then row(e.epoch, c.commit_lsn, c.transaction_index)::"bemi".place end desc nulls last, 1
  loop
    -- A row that comes and goes has all of its stays from the last time that it came and the first that it went.
    continue when exists (select from unnest(v_stays) as s
      where s.key = v_move.former_primary_key and s.until = v_move.place or s.key = v_move.primary_key and s.since = v_move.place);
    v_stays := v_stays || case when v_move.primary_key = a_key
      then array(select s from "bemi".stays(v_spans, v_move.former_primary_key, v_move.place, true) as s)
      else array(select s from "bemi".stays(v_spans, v_move.primary_key, v_move.place, false) as s) end;
  end loop;
  return query
    with found as (
      select distinct on (e.epoch, c.commit_lsn, c.transaction_index) e.epoch, c.*, false as is_end
      from unnest(v_stays) as stay cross join unnest(v_spans) as s cross join lateral (select * from "bemi".changes k
        where k."table" = s.name and (k.schema = s.schema or s.schema is null) and k.committed_at >= s.since and k.committed_at < s.until
          and hashtextextended(k.primary_key, 0) = hashtextextended(stay.key, 0) and k.primary_key = stay.key) as c
        join "bemi".epochs e on e.source_id = c.source_id
      where (stay.since is null or row(e.epoch, c.commit_lsn, c.transaction_index)::"bemi".place >= stay.since)
        and (stay.until is null or row(e.epoch, c.commit_lsn, c.transaction_index)::"bemi".place <= stay.until)
    ), ends as (
      select e.epoch, c.*, true as is_end
      from unnest(v_spans) as s cross join lateral (select * from "bemi".changes m
        where m."table" = s.name and (m.schema = s.schema or s.schema is null) and m.committed_at >= s.since and m.committed_at < s.until
          and m.operation = 'TRUNCATE' and m.primary_key is null and m.before = '{}' and m.after = '{}') as c
        join "bemi".epochs e on e.source_id = c.source_id
    ), ordered as (
      select o.*, lag(o.operation) over (order by o.epoch, o.commit_lsn, o.transaction_index) as former_operation
      from (select * from found union all select * from ends) as o
    )
    select o.id, o.database, o.schema, o."table", o.primary_key, o.former_primary_key, o.operation, o.before, o.after, o.context,
      o.committed_at, o.queued_at, o.created_at, o.transaction_id, o.position, o.source_id, o.commit_lsn, o.transaction_index
    from ordered o
    where not o.is_end or o.former_operation in ('CREATE', 'UPDATE', 'SNAPSHOT')
    order by o.epoch, o.commit_lsn, o.transaction_index;
end
$$;
