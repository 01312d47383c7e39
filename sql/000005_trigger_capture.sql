-- Trigger capture: the triggers of a tracked table write the log themselves, in the transaction of the change.
-- Names are prefixed, and rows converted as to_jsonb(alias.*), because a user's column called like an alias would win.

-- What the changes of one statement have in common.
create type "bemi".frame as (
  schema text,
  name text,
  keys text[],
  ignored text[],
  masked text[],
  is_strict boolean,
  context jsonb,
  source_id integer,
  lsn pg_lsn,
  transaction_id bigint,
  written_at timestamptz,
  id_time text,
  -- Whether names and columns have to be asked of the catalog.
  is_unsettled boolean
);

-- Functions with a RETURN are resolved when they are made, whatever the search_path, and inlined where they are called.

-- The first 15 characters of a UUIDv7: 48 bits of milliseconds, then the version.
create function "bemi".id_time(a_time timestamptz) returns text
language sql stable
return overlay(lpad(to_hex(floor(extract(epoch from a_time) * 1000)::bigint), 12, '0') placing '-' from 9 for 0) || '-7';

-- The source that trigger capture writes to, remembered until the server starts again. Never waits for another
-- transaction, and never fails for one.
create function "bemi".source_of_this_start(a_relation oid) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  v_id integer := "bemi".current_source('trigger');
begin
  begin
    update "bemi".tracked_tables
    set source_id = v_id, source_database = current_database(), source_known_since = pg_postmaster_start_time()
    where relation in (select relation from "bemi".tracked_tables where relation = a_relation for update skip locked);
  exception when others then
    null;
  end;
  return v_id;
end
$$;

-- One query, since in PL/pgSQL each expression is prepared anew in each transaction.
create function "bemi".open_frame(
  a_relation oid, a_statement text, a_context text default current_setting('bemi.context', true)
) returns "bemi".frame
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  v_frame "bemi".frame;
  v_tracked "bemi".tracked_tables;
begin
  select t.schema, t.name, t.key_columns, t.ignored, t.masked, t.is_strict,
    "bemi".current_context(a_statement, a_context),
    case when t.source_known_since = pg_postmaster_start_time() and t.source_database = current_database() then t.source_id end,
    pg_current_wal_insert_lsn(), pg_current_xact_id()::text::bigint, clock.now, "bemi".id_time(clock.now),
    t.root <> a_relation or t.masked <> '{}' or not "bemi".follows_ddl()
  into v_frame
  from "bemi".tracked_tables t cross join (select clock_timestamp() as now) as clock
  where t.relation = a_relation;
  if not found then
    raise exception 'relation % has capture triggers but is not tracked', a_relation;
  end if;
  if v_frame.source_id is null then
    v_frame.source_id := "bemi".source_of_this_start(a_relation);
  end if;
  if v_frame.is_unsettled then
    select * into v_tracked from "bemi".tracked_tables where relation = a_relation;
    if v_tracked.root <> a_relation or not "bemi".follows_ddl() then
      -- Renames are noticed by the event trigger; without one the catalog is asked each time.
      select n.nspname, c.relname into v_frame.schema, v_frame.name
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where c.oid = v_tracked.root;
      v_frame.keys := "bemi".key_columns(v_tracked.root);
    end if;
    if v_tracked.masked <> '{}' then
      v_frame.masked := "bemi".masked_columns(a_relation, v_tracked.masked, v_tracked.masked_numbers);
    end if;
  end if;
  return v_frame;
end
$$;

-- A UUIDv7: the time of the statement, then random bits.
create function "bemi".change_id(a_time text) returns uuid
language sql volatile
return overlay(gen_random_uuid()::text placing a_time from 1 for 15)::uuid;

-- The one place that writes a change which stands alone: a row's, a TRUNCATE's, a gap's.
create function "bemi".write_change(
  a_frame "bemi".frame, a_operation text, a_before jsonb, a_after jsonb, a_lsn pg_lsn default null, a_index bigint default null
) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  v_index bigint := coalesce(a_index, nextval('"bemi".change_sequence'));
  v_former text := case when a_operation = 'UPDATE' then "bemi".key_of(a_before, a_frame.keys) end;
  v_key text := case a_operation when 'TRUNCATE' then null when 'DELETE' then "bemi".key_of(a_before, a_frame.keys)
    else "bemi".key_of(a_after, a_frame.keys) end;
begin
  insert into "bemi".changes (id, database, schema, "table", primary_key, former_primary_key, operation, before, after,
    context, committed_at, queued_at, transaction_id, position, source_id, commit_lsn, transaction_index)
  values ("bemi".change_id(a_frame.id_time), current_database(), a_frame.schema, a_frame.name,
    v_key, case when v_former is distinct from v_key then v_former end, a_operation, a_before, a_after,
    a_frame.context, a_frame.written_at, a_frame.written_at, a_frame.transaction_id,
    (coalesce(a_lsn, a_frame.lsn) - '0/0'::pg_lsn)::bigint, a_frame.source_id, coalesce(a_lsn, a_frame.lsn), v_index);
  return v_index;
end
$$;

-- A statement that could not be captured is recorded as a gap: the table, the operation, the reason, and no values. But for
-- one whose transaction PostgreSQL wants repeated (40001, 40P01): the whole is, and then captured.
create function "bemi".write_gap(a_relation oid, a_operation text, a_sqlstate text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  v_frame "bemi".frame;
begin
  select n.nspname, c.relname into v_frame.schema, v_frame.name
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where c.oid = coalesce(pg_partition_root(a_relation), a_relation);
  v_frame.keys := '{}';
  v_frame.context := jsonb_build_object('db',
    "bemi".current_context(null) -> 'db' || jsonb_build_object('gap', jsonb_build_object('sqlstate', a_sqlstate)));
  v_frame.source_id := "bemi".current_source('trigger');
  v_frame.lsn := pg_current_wal_insert_lsn();
  v_frame.transaction_id := pg_current_xact_id()::text::bigint;
  v_frame.written_at := clock_timestamp();
  v_frame.id_time := "bemi".id_time(v_frame.written_at);
  perform "bemi".write_change(v_frame, a_operation, '{}', '{}');
  raise warning 'bemi: a change of %.% was not captured (SQLSTATE %)', v_frame.schema, v_frame.name, a_sqlstate;
exception when others then
  raise warning 'bemi: a change was not captured (SQLSTATE %, then %)', a_sqlstate, sqlstate;
end
$$;

-- The client's statement, unless it was not the client's: within other triggers the text says nothing about the change.
create function "bemi".client_statement(a_depth integer) returns text
language sql volatile
return case when a_depth <= 1 then current_query() end;

-- What the application said, in the setting or, where another trigger writes, in the comment of the statement around it.
-- At its own depth a statement's comment is read with the statement.
create function "bemi".client_context(a_depth integer) returns text
language sql volatile
return coalesce(nullif(current_setting('bemi.context', true), ''), case when a_depth > 1 then "bemi".outer_comment() end);

create function "bemi".is_strict(a_relation oid) returns boolean
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  select coalesce((select is_strict from "bemi".tracked_tables where relation = a_relation), false)
$$;

-- What current_context() has of the statement under way, inlined where it is called. NULL where that has to look closer:
-- a comment or PostgREST said something, or the setting holds no object.
create function "bemi".plain_context(a_statement text, a_context text) returns jsonb
language sql stable
return case
  when a_statement like '% Bemi*/%' or current_setting('request.jwt.claims', true) <> ''
    or current_setting('request.headers', true) <> '' then null
  else case when a_statement is not null and "bemi".keeps_statements()
      then jsonb_build_object('SQL', left(a_statement, 1000)) else '{}' end
    || "bemi".parse_object(coalesce(nullif(a_context, ''), '{}')) - '{db,jwt,client}'::text[]
    || jsonb_build_object('db', "bemi".database_facts())
end;

-- A statement's changes. Most write one row, which the first half is about: it needs no pairing, and a third less CPU, since
-- in PL/pgSQL each query, and each function that it calls, is prepared anew in each transaction. What is rare goes the
-- general way: a partition, masks, a context in a comment or from PostgREST, the first write since the server started.
-- Whatever the session prints dates, intervals, bytes and floats like: the log has one form of each value, the worker's.
create function "bemi".capture_statement() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
  set timezone = 'UTC' set datestyle = 'ISO, MDY' set intervalstyle = 'postgres' set bytea_output = 'hex'
  set extra_float_digits = 1 set quote_all_identifiers = off
as $$
declare
  v_statement text := "bemi".client_statement(pg_trigger_depth());
  v_context text := "bemi".client_context(pg_trigger_depth());
  v_before jsonb := '{}';
  v_after jsonb := '{}';
  v_key text;
  v_former_key text;
  v_frame "bemi".frame;
  v_old bigint;
  v_new bigint;
begin
  if tg_op = 'UPDATE' then
    select to_jsonb(bemi_before.*), to_jsonb(bemi_after.*) into v_before, v_after
    from bemi_old as bemi_before, bemi_new as bemi_after
    where not exists (select from bemi_old offset 1) and not exists (select from bemi_new offset 1);
  elsif tg_op = 'INSERT' then
    select to_jsonb(bemi_after.*) into v_after from bemi_new as bemi_after where not exists (select from bemi_new offset 1);
  else
    select to_jsonb(bemi_before.*) into v_before from bemi_old as bemi_before where not exists (select from bemi_old offset 1);
  end if;
  if found then
    select t.source_id, t.ignored, clock_timestamp(), pg_current_wal_insert_lsn(),
      "bemi".key_of(case when tg_op = 'DELETE' then v_before else v_after end, t.key_columns),
      case when tg_op = 'UPDATE' then "bemi".key_of(v_before, t.key_columns) end
    into v_frame.source_id, v_frame.ignored, v_frame.written_at, v_frame.lsn, v_key, v_former_key
    from "bemi".tracked_tables t
    where t.relation = tg_relid and t.root = tg_relid and t.masked = '{}' and "bemi".follows_ddl()
      and t.source_known_since = pg_postmaster_start_time() and t.source_database = current_database();
    v_frame.context := "bemi".plain_context(v_statement, v_context);
    if v_frame.source_id is not null and v_frame.context is not null then
      if tg_op <> 'UPDATE' or v_before - v_frame.ignored <> v_after - v_frame.ignored then
        insert into "bemi".changes (id, database, schema, "table", primary_key, former_primary_key, operation, before, after,
          context, committed_at, queued_at, transaction_id, position, source_id, commit_lsn, transaction_index)
        values ("bemi".change_id("bemi".id_time(v_frame.written_at)), current_database(), tg_table_schema, tg_table_name,
          v_key, nullif(v_former_key, v_key), case tg_op when 'INSERT' then 'CREATE' else tg_op end, v_before, v_after,
          v_frame.context, v_frame.written_at, v_frame.written_at, pg_current_xact_id()::text::bigint,
          (v_frame.lsn - '0/0'::pg_lsn)::bigint, v_frame.source_id, v_frame.lsn, nextval('"bemi".change_sequence'));
      end if;
      return null;
    end if;
  end if;

  -- OFFSET 0 has each row converted once, however often it is used.
  if tg_op = 'INSERT' then
    if not exists (select from bemi_new) then
      return null;
    end if;
    v_frame := "bemi".open_frame(tg_relid, v_statement, v_context);
    insert into "bemi".changes (id, database, schema, "table", primary_key, operation, after,
      context, committed_at, queued_at, transaction_id, position, source_id, commit_lsn, transaction_index)
    select "bemi".change_id(v_frame.id_time), current_database(), v_frame.schema, v_frame.name,
      "bemi".key_of(bemi_rows.bemi_after, v_frame.keys), 'CREATE', bemi_rows.bemi_after - v_frame.masked,
      v_frame.context, v_frame.written_at, v_frame.written_at, v_frame.transaction_id,
      (v_frame.lsn - '0/0'::pg_lsn)::bigint, v_frame.source_id, v_frame.lsn, nextval('"bemi".change_sequence')
    from (select to_jsonb(bemi_row.*) as bemi_after from bemi_new as bemi_row offset 0) as bemi_rows;
  elsif tg_op = 'DELETE' then
    if not exists (select from bemi_old) then
      return null;
    end if;
    v_frame := "bemi".open_frame(tg_relid, v_statement, v_context);
    insert into "bemi".changes (id, database, schema, "table", primary_key, operation, before,
      context, committed_at, queued_at, transaction_id, position, source_id, commit_lsn, transaction_index)
    select "bemi".change_id(v_frame.id_time), current_database(), v_frame.schema, v_frame.name,
      "bemi".key_of(bemi_rows.bemi_before, v_frame.keys), 'DELETE', bemi_rows.bemi_before - v_frame.masked,
      v_frame.context, v_frame.written_at, v_frame.written_at, v_frame.transaction_id,
      (v_frame.lsn - '0/0'::pg_lsn)::bigint, v_frame.source_id, v_frame.lsn, nextval('"bemi".change_sequence')
    from (select to_jsonb(bemi_row.*) as bemi_before from bemi_old as bemi_row offset 0) as bemi_rows;
  else
    -- The n-th row of one transition table became the n-th of the other: PostgreSQL adds to both at the same moment. That
    -- order is not documented, so the counts are compared, and the tests try it on every server version.
    select (select count(*) from bemi_old), (select count(*) from bemi_new) into v_old, v_new;
    if v_old <> v_new then
      raise cardinality_violation using message = 'the transition tables differ in length';
    elsif v_new = 0 then
      return null;
    end if;
    v_frame := "bemi".open_frame(tg_relid, v_statement, v_context);
    insert into "bemi".changes (id, database, schema, "table", primary_key, former_primary_key, operation, before, after,
      context, committed_at, queued_at, transaction_id, position, source_id, commit_lsn, transaction_index)
    select "bemi".change_id(v_frame.id_time), current_database(), v_frame.schema, v_frame.name,
      bemi_pairs.bemi_key, nullif(bemi_pairs.bemi_former_key, bemi_pairs.bemi_key), 'UPDATE',
      bemi_pairs.bemi_before - v_frame.masked, bemi_pairs.bemi_after - v_frame.masked,
      v_frame.context, v_frame.written_at, v_frame.written_at, v_frame.transaction_id,
      (v_frame.lsn - '0/0'::pg_lsn)::bigint, v_frame.source_id, v_frame.lsn, nextval('"bemi".change_sequence')
    from (
      select bemi_befores.bemi_before, bemi_afters.bemi_after,
        "bemi".key_of(bemi_befores.bemi_before, v_frame.keys) as bemi_former_key,
        "bemi".key_of(bemi_afters.bemi_after, v_frame.keys) as bemi_key
      from (select row_number() over () as bemi_number, to_jsonb(bemi_row.*) as bemi_before
          from bemi_old as bemi_row) as bemi_befores
        join (select row_number() over () as bemi_number, to_jsonb(bemi_row.*) as bemi_after
          from bemi_new as bemi_row) as bemi_afters using (bemi_number)
      where bemi_befores.bemi_before - v_frame.ignored <> bemi_afters.bemi_after - v_frame.ignored
      order by bemi_number
    ) as bemi_pairs;
  end if;
  return null;
exception
  when transaction_rollback then
    raise;
  when others then
    if "bemi".is_strict(tg_relid) then
      raise;
    end if;
    perform "bemi".write_gap(tg_relid, case tg_op when 'INSERT' then 'CREATE' else tg_op end, sqlstate);
    return null;
end
$$;

-- TRUNCATE fires the triggers of a partitioned table and of all its partitions: first each BEFORE, then each AFTER.
-- What is truncated together is kept in a transaction-local setting, as `before:oid,oid,`.
create function "bemi".begin_truncate() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  v_together text := coalesce(current_setting('bemi.truncating', true), '');
begin
  perform set_config('bemi.truncating',
    case when v_together like 'before:%' then v_together else 'before:' end || tg_relid || ',', true);
  return null;
end
$$;

create function "bemi".capture_truncate() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  v_together text := coalesce(current_setting('bemi.truncating', true), '');
  v_frame "bemi".frame;
begin
  if v_together <> '' then
    v_together := regexp_replace(v_together, '^[a-z]+:', '');
    perform set_config('bemi.truncating', 'after:' || v_together, true);
    -- A partition that goes with the table above it is no change of its own.
    if exists (select from pg_partition_ancestors(tg_relid) as a (relation)
      where a.relation <> tg_relid and a.relation::oid::text = any (string_to_array(v_together, ',')))
    then
      return null;
    end if;
  end if;
  v_frame := "bemi".open_frame(tg_relid, "bemi".client_statement(pg_trigger_depth()), "bemi".client_context(pg_trigger_depth()));
  -- It says nothing of the table's other rows.
  if pg_partition_root(tg_relid) <> tg_relid then
    v_frame.context := jsonb_set(v_frame.context, '{db,partition}', 'true');
  end if;
  perform "bemi".write_change(v_frame, 'TRUNCATE', '{}', '{}');
  return null;
exception
  when transaction_rollback then
    raise;
  when others then
    if "bemi".is_strict(tg_relid) then
      raise;
    end if;
    perform "bemi".write_gap(tg_relid, 'TRUNCATE', sqlstate);
    return null;
end
$$;

-- Row-level capture. The statements that are under way are kept in a transaction-local setting, innermost first, as
-- `root oid:operation:half-done move;...`, the client's text once, for copying it for each row would be quadratic, and
-- for each table and operation the context in which it began: a row trigger may set another.
create function "bemi".begin_statement() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  v_number bigint := coalesce(nullif(current_setting('bemi.statement_number', true), ''), '0')::bigint + 1;
  v_root text := coalesce(pg_partition_root(tg_relid), tg_relid)::oid;
begin
  perform set_config('bemi.statements',
    v_root || ':' || tg_op || ':;' || coalesce(current_setting('bemi.statements', true), ''), true);
  perform set_config('bemi.statement_number', v_number::text, true);
  perform set_config('bemi.began_' || v_root || '_' || tg_op,
    v_number || ':' || coalesce(current_setting('bemi.context', true), ''), true);
  if pg_trigger_depth() <= 1 then
    -- Each row reads it again. One that may end in a context stays whole: cut, a literal's text could come to be its end.
    perform set_config('bemi.statement',
      case when current_query() like '% Bemi*/%' then current_query() else left(current_query(), 1000) end, true);
  end if;
  return null;
end
$$;

create function "bemi".end_statement() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  -- By its table: triggers that a foreign key's action fires end after those of the statement around it.
  perform set_config('bemi.statements', regexp_replace(coalesce(current_setting('bemi.statements', true), ''),
    '(^|;)' || coalesce(pg_partition_root(tg_relid), tg_relid)::oid || ':' || tg_op || ':[0-9]*;', E'\\1'), true);
  if pg_trigger_depth() <= 1 then
    perform set_config('bemi.statement', '', true);
  end if;
  return null;
end
$$;

-- The context in which the statement began that writes a row: the latest of that operation which names its table, or
-- one that the table inherits from.
create function "bemi".begun_context(a_relation oid, a_operation text) returns text
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  v_root oid := coalesce(pg_partition_root(a_relation), a_relation);
  v_began text := current_setting('bemi.began_' || v_root || '_' || a_operation, true);
begin
  if v_root = a_relation and exists (select from pg_inherits where inhrelid = a_relation) then
    with recursive family as (
      select a_relation as relation
      union
      select i.inhparent from family f join pg_inherits i on i.inhrelid = f.relation
    )
    select b.began into v_began
    from family, lateral (select current_setting('bemi.began_' || relation || '_' || a_operation, true)) as b (began)
    where b.began <> ''
    order by split_part(b.began, ':', 1)::bigint desc
    limit 1;
  end if;
  if v_began is null or v_began = '' then
    return current_setting('bemi.context', true);
  end if;
  return substr(v_began, position(':' in v_began) + 1);
end
$$;

-- Whether the latest UPDATE and DELETE of a table began together, as those of a MERGE do. One that inserts as well may have
-- deleted one row and inserted another.
create function "bemi".is_merge_that_moves(a_root text) returns boolean
language sql volatile set search_path = pg_catalog, pg_temp
as $$
  select coalesce(began.deleted = began.updated + 1 and began.inserted is distinct from began.updated - 1, false)
  from (select split_part(nullif(current_setting('bemi.began_' || a_root || '_DELETE', true), ''), ':', 1)::bigint,
    split_part(nullif(current_setting('bemi.began_' || a_root || '_UPDATE', true), ''), ':', 1)::bigint,
    split_part(nullif(current_setting('bemi.began_' || a_root || '_INSERT', true), ''), ':', 1)::bigint
  ) as began (deleted, updated, inserted)
$$;

-- Where a late change belongs. An AFTER ROW trigger can change a row of the same statement that was not reported yet:
-- then the later change is in the log already. The late one goes right before the first change of its key in this
-- transaction that starts from the late one's image and does not follow from the change before it.
create function "bemi".successor_of(
  a_frame "bemi".frame, a_key text, a_after jsonb, a_is_first boolean, out lsn pg_lsn, out transaction_index bigint
)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  select h.commit_lsn, h.transaction_index
  from (
    select c.commit_lsn, c.transaction_index, c.before,
      lag(c.after) over (order by c.commit_lsn, c.transaction_index) as previous
    from "bemi".changes c
    where c."table" = a_frame.name and c.schema = a_frame.schema
      and hashtextextended(c.primary_key, 0) = hashtextextended(a_key, 0) and c.primary_key = a_key
      and c.committed_at >= transaction_timestamp() - interval '1 minute'
      -- Plus 0: the index on transactions would read all of this one for each row.
      and c.source_id = a_frame.source_id and c.transaction_id + 0 = a_frame.transaction_id
  ) as h
  where h.before = a_after and case when h.previous is null then a_is_first else h.previous <> h.before end
  order by h.commit_lsn, h.transaction_index
  limit 1
$$;

create function "bemi".capture_row() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
  set timezone = 'UTC' set datestyle = 'ISO, MDY' set intervalstyle = 'postgres' set bytea_output = 'hex'
  set extra_float_digits = 1 set quote_all_identifiers = off
as $$
declare
  v_frame "bemi".frame;
  v_before jsonb := '{}';
  v_after jsonb := '{}';
  v_masked_before jsonb;
  v_masked_after jsonb;
  v_statements text := coalesce(current_setting('bemi.statements', true), '');
  v_root text := coalesce(pg_partition_root(tg_relid), tg_relid)::oid;
  -- The innermost that writes this table: within a statement's row triggers others are begun, and may not have ended.
  v_innermost text[] := string_to_array(substring(v_statements from '(?:^|;)(' || v_root || ':[^;]*)'), ':');
  v_is_foreign boolean := (select relkind = 'f' from pg_class where oid = tg_relid);
  v_operation text := case tg_op when 'INSERT' then 'CREATE' else tg_op end;
  v_is_move boolean;
  v_is_first boolean := true;
  v_lsn pg_lsn;
  v_index bigint;
begin
  -- Guarded, but without a write inside: a subtransaction that writes costs a transaction id for each row.
  begin
    if tg_op <> 'INSERT' then
      v_before := to_jsonb(old);
    end if;
    if tg_op <> 'DELETE' then
      v_after := to_jsonb(new);
    end if;
    -- A partition move arrives as the DELETE and the INSERT of an UPDATE: the first half is written, the second completes it.
    v_is_move := tg_op <> 'UPDATE' and (v_innermost[2] = 'UPDATE' or v_innermost[2] = 'DELETE' and "bemi".is_merge_that_moves(v_root))
      and (select relispartition from pg_class where oid = tg_relid);
    v_frame := "bemi".open_frame(tg_relid,
      -- Absent where the statement names a parent that is captured otherwise.
      case when pg_trigger_depth() <= 1 then coalesce(nullif(current_setting('bemi.statement', true), ''), current_query()) end,
      coalesce(nullif("bemi".begun_context(tg_relid, case when v_is_move then 'UPDATE' else tg_op end), ''),
        case when pg_trigger_depth() > 1 then "bemi".outer_comment() end));
    v_masked_before := v_before - v_frame.masked;
    v_masked_after := v_after - v_frame.masked;
  exception
    when transaction_rollback then
      raise;
    when others then
      if "bemi".is_strict(tg_relid) then
        raise;
      end if;
      perform "bemi".write_gap(tg_relid, v_operation, sqlstate);
      return null;
  end;
  if tg_op = 'UPDATE' and v_before - v_frame.ignored = v_after - v_frame.ignored then
    return null;
  end if;

  if v_is_move and tg_op = 'INSERT' and v_innermost[3] ~ '^[0-9]+$' then
    perform set_config('bemi.maintenance', 'on', true);
    update "bemi".changes
    set operation = 'UPDATE', after = v_masked_after, primary_key = "bemi".key_of(v_after, v_frame.keys),
      former_primary_key = nullif(primary_key, "bemi".key_of(v_after, v_frame.keys))
    where source_id = v_frame.source_id and commit_lsn <= v_frame.lsn and transaction_index = v_innermost[3]::bigint
      and transaction_id + 0 = v_frame.transaction_id and operation = 'DELETE' and "table" = v_frame.name
      and committed_at >= transaction_timestamp() - interval '1 minute';
    perform set_config('bemi.maintenance', '', true);
    perform set_config('bemi.statements', regexp_replace(v_statements, '(^|;)(' || v_root || ':[A-Z]+:)[0-9]*;', E'\\1\\2;'), true);
    return null;
  end if;

  -- Late: this statement's version of the row is superseded already, or a deleted key exists again.
  if not v_is_foreign and (tg_op = 'DELETE' or new.xmax::text <> '0') then
    if tg_op <> 'INSERT' then
      v_is_first := age(old.xmin) > age(pg_current_xact_id()::xid);
    end if;
    if tg_op <> 'DELETE' or v_is_first then
      select s.lsn, s.transaction_index - 1 into v_lsn, v_index
      from "bemi".successor_of(v_frame,
        "bemi".key_of(case tg_op when 'DELETE' then v_before else v_after end, v_frame.keys), v_masked_after, v_is_first) as s;
    end if;
  end if;
  v_index := "bemi".write_change(v_frame, v_operation,
    v_masked_before, v_masked_after, v_lsn, v_index);
  if v_is_move and tg_op = 'DELETE' then
    perform set_config('bemi.statements', regexp_replace(v_statements, '(^|;)(' || v_root || ':[A-Z]+:)[0-9]*;', E'\\1\\2' || v_index || ';'), true);
  end if;
  return null;
end
$$;
