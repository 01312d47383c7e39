-- Reverting: what the catalog says today of a table that the log tells of, and how images compare with rows.
-- Nothing here writes: the statements of a revert are made by the client, and run with the rights of who reverts.

-- Whether values of a type hold json, whose spelling (order, repeated keys, spaces) jsonb does not keep.
create function "bemi".holds_json(a_type oid) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
  with recursive parts as (
    select a_type as type
    union
    select p.part
    from parts join pg_type t on t.oid = parts.type, lateral (
      select t.typelem as part where t.typelem <> 0 and t.typtype = 'b'
      union all select t.typbasetype where t.typtype = 'd'
      union all select a.atttypid from pg_attribute a where a.attrelid = t.typrelid and t.typtype = 'c' and a.attnum > 0 and not a.attisdropped
    ) as p
  )
  select exists (select from parts where type = 'json'::regtype)
    -- The elements of an array of jsonb may be arrays themselves: in JSON the two look alike.
    or exists (select from parts where type = 'jsonb[]'::regtype)
$$;

create function "bemi".column_names(a_relation oid, a_numbers smallint[]) returns json
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select json_agg(a.attname order by n.ordinality)
  from unnest(a_numbers) with ordinality as n (attnum, ordinality) join pg_attribute a on a.attrelid = a_relation and a.attnum = n.attnum
$$;

create function "bemi".foreign_keys(a_relation oid) returns json
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select coalesce(json_agg(json_build_object(
    'name', c.conname, 'qualifiedName', format('%I.%I', n.nspname, c.conname), 'isDeferrable', c.condeferrable,
    'onDelete', c.confdeltype, 'onUpdate', c.confupdtype,
    'child', json_build_object('schema', n.nspname, 'table', k.relname, 'name', k.oid::regclass::text, 'isPartitioned', k.relkind = 'p'),
    'parent', json_build_object('schema', pn.nspname, 'table', p.relname, 'name', p.oid::regclass::text, 'isPartitioned', p.relkind = 'p'),
    'childColumns', "bemi".column_names(c.conrelid, c.conkey), 'parentColumns', "bemi".column_names(c.confrelid, c.confkey)
  ) order by c.conname, c.oid), '[]')
  from pg_constraint c
    join pg_class k on k.oid = c.conrelid join pg_namespace n on n.oid = k.relnamespace
    join pg_class p on p.oid = c.confrelid join pg_namespace pn on pn.oid = p.relnamespace
  -- Partitions have copies of their root's.
  where c.contype = 'f' and c.conparentid = 0 and a_relation in (c.conrelid, c.confrelid)
$$;

-- NULL where there is no such table any more. Names of types and tables are qualified, for the path is pinned.
create function "bemi".table_facts(a_schema text, a_table text) returns json
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select json_build_object(
    'schema', a_schema, 'table', a_table, 'oid', c.oid::bigint::text, 'name', c.oid::regclass::text,
    'isPartitioned', c.relkind = 'p',
    'capture', t.capture, 'ignored', coalesce(t.ignored, '{}'),
    'masked', case when t.masked <> '{}' then "bemi".masked_columns(c.oid, t.masked, t.masked_numbers) else '{}' end,
    'trackedAt', t.tracked_at,
    'key', "bemi".key_columns(c.oid),
    'columns', (
      select coalesce(json_agg(json_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
        'isRequired', a.attnotnull and not a.atthasdef and a.attidentity = '', 'isGenerated', a.attgenerated <> '',
        'isAlwaysIdentity', a.attidentity = 'a', 'isNullable', not a.attnotnull, 'holdsJson', "bemi".holds_json(a.atttypid)) order by a.attnum), '[]')
      from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
    'uniques', (
      select coalesce(json_agg(json_build_object('name', k.relname, 'isKey', i.indisprimary, 'isDeferrable', not i.indimmediate,
        'qualifiedName', format('%I.%I', a_schema, k.relname),
        'columns', (select json_agg(a.attname order by o.ordinality)
          from unnest(i.indkey) with ordinality as o (attnum, ordinality) join pg_attribute a on a.attrelid = c.oid and a.attnum = o.attnum
          where o.ordinality <= i.indnkeyatts)) order by i.indisprimary desc, k.relname), '[]')
      from pg_index i join pg_class k on k.oid = i.indexrelid
      where i.indrelid = c.oid and i.indisunique and i.indislive and i.indpred is null and i.indexprs is null),
    'foreignKeys', "bemi".foreign_keys(c.oid))
  from pg_class c join pg_namespace n on n.oid = c.relnamespace left join "bemi".tracked_tables t on t.relation = c.oid
  where n.nspname = a_schema and c.relname = a_table and c.relkind in ('r', 'p', 'f')
$$;

-- A JSON value as a column of a type would hold it; NULL where the type refuses it.
create function "bemi".as_type(a_type text, a_value jsonb) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  v_read jsonb;
begin
  execute format('select to_jsonb(bemi_read.bemi_value) from jsonb_to_record($1) as bemi_read (bemi_value %s)', a_type)
    into v_read using jsonb_build_object('bemi_value', a_value);
  return coalesce(v_read, 'null');
exception when data_exception or feature_not_supported or integrity_constraint_violation or datatype_mismatch or wrong_object_type then
  return null;
end
$$;

-- The columns of an image that a row has other values in. What was written by a session with another time zone or
-- another style of dates only looks different; columns that are gone, and generated ones, are left out.
create function "bemi".differing_columns(a_relation oid, a_row jsonb, a_image jsonb) returns text[]
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  -- Nearly always: an image may be of some columns alone.
  if a_row || a_image = a_row then
    return '{}';
  end if;
  return array(
    select a.attname::text
    from jsonb_each(a_image) as i join pg_attribute a on a.attrelid = a_relation and a.attname = i.key
    where a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
      and coalesce(a_row -> i.key, 'null') <> i.value
      and a_row -> i.key is distinct from "bemi".as_type(format_type(a.atttypid, a.atttypmod), i.value)
    order by a.attnum);
end
$$;

-- The columns of an image whose value the column of today cannot take.
create function "bemi".refused_columns(a_relation oid, a_image jsonb) returns text[]
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select array(
    select a.attname::text
    from jsonb_each(a_image) as i join pg_attribute a on a.attrelid = a_relation and a.attname = i.key
    where a.attnum > 0 and not a.attisdropped and a.attgenerated = '' and i.value <> 'null'
      and "bemi".as_type(format_type(a.atttypid, a.atttypmod), i.value) is null
    order by a.attnum)
$$;

-- Which of some images, by their numbers, have such columns. All of them are read at once first: hardly ever is one refused.
create function "bemi".refused_images(a_relation oid, a_images jsonb) returns table (n bigint, refused text[])
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  begin
    execute format('select from jsonb_populate_recordset(null::%s, $1)', a_relation::regclass) using a_images;
    return;
  exception when data_exception or feature_not_supported or integrity_constraint_violation or datatype_mismatch or wrong_object_type then
    null;
  end;
  return query
    select e.n, e.refused
    from (select i.n, "bemi".refused_columns(a_relation, i.image) as refused from jsonb_array_elements(a_images) with ordinality as i (image, n)) as e
    where e.refused <> '{}';
end
$$;

-- For a script that was made beforehand: fails where a row is no longer as it was.
create function "bemi".expect_rows(a_expected bigint, a_found bigint) returns bigint
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
begin
  if a_found <> a_expected then
    raise object_not_in_prerequisite_state using
      message = format('%s of %s rows are no longer as they were when this was made', a_expected - a_found, a_expected),
      hint = 'Make the plan again: see what changed meanwhile.';
  end if;
  return a_found;
end
$$;

-- The rows of a table right before a place in the log; NULL where not all of them are known.
create function "bemi".rows_before(a_relation oid, a_source integer, a_lsn pg_lsn, a_index bigint, a_at timestamptz) returns json
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select coalesce(json_agg(json_build_object('key', i.primary_key, 'image', i.image::text)), '[]')
    from "bemi".epochs e, "bemi".images_as_of(a_relation, row(a_at, e.epoch, a_lsn, a_index - 1, '{}')::"bemi".moment) as i
    where e.source_id = a_source);
exception when sqlstate 'BE001' then
  return null;
end
$$;

-- Names of columns in the log that mean another column today, or none: while a name meant that column, and what it is
-- called now. Times are texts in the order of time. A dropped column whose name was taken again gets a name that none has.
create function "bemi".column_renames(out schema text, out "table" text, out name text, out since text, out until text, out present text)
returns setof record
language sql stable set search_path = pg_catalog, pg_temp
as $$
  with named as (
    select c.table_id, c.number, c.name, c.dropped_at, c.named_at,
      lag(c.named_at) over same_name is null as is_first, lead(c.named_at) over same_name as until,
      first_value(c.name) over (partition by c.table_id, c.number order by c.named_at desc) as last_name,
      max(c.dropped_at) over (partition by c.table_id, c.number) is not null as is_dropped
    from "bemi".table_columns c
    window same_name as (partition by c.table_id, c.name order by c.named_at)
  ), meant as (
    select n.*, case when not n.is_dropped then n.last_name
      when exists (select from named o where o.table_id = n.table_id and o.last_name = n.name and not o.is_dropped) then n.name || ' (dropped)'
      else n.name end as present
    from named n
  )
  -- While the table had its name, too: a table that has it later is another.
  select t.schema, t.name, m.name,
    case when greatest(m.since, t.since) = '-infinity' then '' else to_char(greatest(m.since, t.since) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') end,
    case when least(m.until, t.until) = 'infinity' then 'later' else to_char(least(m.until, t.until) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') end,
    m.present
  from (
    select table_id, name, case when is_first then '-infinity' else named_at end as since, coalesce(until, 'infinity') as until, present
    from meant where present <> name
  ) as m cross join "bemi".table_spans(m.table_id) as t
  where greatest(m.since, t.since) < least(m.until, t.until)
$$;
