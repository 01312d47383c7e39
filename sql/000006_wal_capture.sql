-- WAL capture: the application's write puts its context into the Write-Ahead Log, ahead of the rows that PostgreSQL
-- writes there anyway. A worker decodes both.

-- Messages are in UTF-8, whatever the database's encoding. Where that is unknown (SQL_ASCII) the bytes go as they are:
-- to check them could fail the application's write.
create function "bemi".message_encoding() returns name
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select case getdatabaseencoding() when 'SQL_ASCII' then 'SQL_ASCII' else 'UTF8' end::name
$$;

-- The seal: a secret of the owner's in each message, without which the worker takes it for nobody's. Anybody may call
-- pg_logical_emit_message, so without a seal anybody could say what only the database should. Messages that hold rows,
-- those of a baseline, have it always.
create table "bemi".seal (
  singleton boolean primary key default true check (singleton),
  secret text not null,
  -- The transaction that sealed the messages; NULL while they are not.
  sealed_by xid8,
  -- A later one: what began after it can only know that messages are sealed.
  known_by xid8,
  -- From here on every message has it. NULL as long as a transaction is open that began without.
  enforced_from pg_lsn
);

insert into "bemi".seal (secret) values (replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''));

-- Seals, and enforces the seal as soon as no transaction is open that cannot see it. Returns whether it is enforced.
create function "bemi".seal() returns boolean
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  -- Whoever sealed has this lock until all sessions have been told that is_plain_emission() is another.
  lock table "bemi".seal in share row exclusive mode;
  update "bemi".seal set known_by = pg_current_xact_id() where known_by is null and sealed_by is not null;
  update "bemi".seal set sealed_by = pg_current_xact_id() where sealed_by is null;
  update "bemi".emission set seal = s.secret from "bemi".seal s where emission.seal is distinct from s.secret;
  perform "bemi".notify_worker();
  -- An LSN ahead of this cluster's came with a dump from another.
  update "bemi".seal set enforced_from = pg_current_wal_insert_lsn()
  where (enforced_from is null or enforced_from > pg_current_wal_insert_lsn())
    and pg_snapshot_xmin(pg_current_snapshot()) > known_by
    and not exists (select from pg_stat_activity
      where datname = current_database() and pid <> pg_backend_pid() and age(backend_xmin) >= age(known_by::xid));
  return exists (select from "bemi".seal where enforced_from is not null);
end
$$;

-- For the worker, which reads the secret in the WAL anyway.
create function "bemi".read_seal(out secret text, out enforced_from pg_lsn)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  select secret, enforced_from from "bemi".seal
$$;

-- A context message: the version, then what PostgreSQL quotes, the database's own facts first, and last the statement. No text
-- can pass for another, and none that is missing swallows the message.
create function "bemi".emit_message(
  a_root oid, a_leaf oid, a_operation text, a_statement text, a_context text, a_claims text, a_client text, a_seal text
) returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
  select pg_logical_emit_message(true, '_bemi', convert_to(format('1%s %s %s %s %L %L %L %L %L %L %L %s',
    a_root, a_leaf, pg_backend_pid(), a_operation, session_user, current_setting('role', true),
    current_setting('application_name', true), a_context, a_claims, a_client, a_seal, a_statement), "bemi".message_encoding()))
$$;

-- What the application said of its statement: in the setting, in a comment behind the statement, in a header.
create function "bemi".said(a_depth integer, out statement text, out context text, out claims text, out client text)
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  v_comment text;
  v_object text;
begin
  context := current_setting('bemi.context', true);
  claims := current_setting('request.jwt.claims', true);
  -- Of the request's headers only the one that is meant for Bemi: the others hold cookies and keys.
  client := "bemi".parse_object(nullif(current_setting('request.headers', true), '')) ->> 'x-bemi-context';
  if a_depth <= 1 then
    statement := current_query();
    if statement like '% Bemi*/%' then
      v_comment := "bemi".comment_context(statement);
      v_object := "bemi".commented(v_comment);
      if v_object is not null then
        statement := "bemi".without_comment(statement, v_comment);
        context := coalesce(nullif(context, ''), v_object);
      end if;
    end if;
    statement := case when not (select omits_statements from "bemi".emission) then left(statement, 1000) end;
  else
    context := coalesce(nullif(context, ''), "bemi".outer_comment());
  end if;
end
$$;

-- What emit_context() leaves: a comment or a header said something, messages are sealed, leave out statements, or have to be
-- brought into UTF-8.
create function "bemi".emit_said(a_relation oid, a_operation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  v_said record := "bemi".said(pg_trigger_depth());
begin
  perform "bemi".emit_message(pg_partition_root(a_relation), a_relation, a_operation,
    v_said.statement, v_said.context, v_said.claims, v_said.client, (select seal from "bemi".emission));
end
$$;

-- Runs before every statement on every tracked table, so mostly it is one expression, as emit_message() has it: in PL/pgSQL
-- each is prepared anew in each transaction, and so is each function and operator in it. What is NULL, where the statement
-- has a comment or, deeper, may have one, is no message. A search_path to set would cost as much as all of that on
-- PostgreSQL 15, so every name is qualified instead.
create function "bemi".emit_context() returns trigger
language plpgsql security definer
as $$
begin
  if not "bemi".is_plain_emission() or pg_catalog.current_setting('request.headers', true) operator(pg_catalog.<>) ''
    or pg_catalog.pg_logical_emit_message(true, '_bemi', pg_catalog.format('1%s %s %s %s %L %L %L %L %L NULL NULL ',
      pg_catalog.pg_partition_root(tg_relid)::pg_catalog.oid, tg_relid, pg_catalog.pg_backend_pid(), tg_op, session_user,
      pg_catalog.current_setting('role', true), pg_catalog.current_setting('application_name', true),
      pg_catalog.current_setting('bemi.context', true), pg_catalog.current_setting('request.jwt.claims', true))
      operator(pg_catalog.||) case when pg_catalog.pg_trigger_depth() operator(pg_catalog.>) 1
          then case when pg_catalog.current_setting('bemi.commented', true)
            operator(pg_catalog.=) pg_catalog.extract('epoch', pg_catalog.statement_timestamp())::pg_catalog.text then '' end
        when pg_catalog.strpos(pg_catalog.current_query(), ' Bemi*/') operator(pg_catalog.=) 0
          then pg_catalog.left(pg_catalog.current_query(), 1000) end) is null
  then
    perform "bemi".emit_said(tg_relid, tg_op);
  end if;
  return null;
end
$$;

-- In its place on polled tables: held back until a row matches, since a message makes a transaction that would need no commit
-- in the WAL. Anybody can read and write a setting: so neither the seal nor what only the database knows is in it.
create function "bemi".hold_context() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  v_statement text := coalesce(pg_partition_root(tg_relid), tg_relid)::oid || tg_op;
begin
  perform set_config('bemi.held', (coalesce("bemi".parse_object(current_setting('bemi.held', true)), '{}')
    || jsonb_build_object(v_statement, "bemi".said(pg_trigger_depth())))::text, true);
  return null;
end
$$;

-- Before the first row of a statement whose message is held back.
create function "bemi".emit_held() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  v_held jsonb := coalesce("bemi".parse_object(current_setting('bemi.held', true)), '{}');
  v_root oid := coalesce(pg_partition_root(tg_relid), tg_relid);
  v_said jsonb := v_held -> (v_root || tg_op);
begin
  if v_said is not null then
    perform "bemi".emit_message(v_root, v_root, tg_op, v_said ->> 'statement', v_said ->> 'context',
      v_said ->> 'claims', v_said ->> 'client', (select seal from "bemi".emission));
    perform set_config('bemi.held', coalesce(nullif((v_held - (v_root || tg_op))::text, '{}'), ''), true);
  end if;
  return case tg_op when 'DELETE' then old else new end;
end
$$;

-- Creates the publication where it is missing. Made before the slot, for a slot that decodes an unknown publication
-- fails up to PostgreSQL 17, and says nothing at all from 18 on.
create function "bemi".ensure_publication() returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  v_name text := "bemi".own_name();
begin
  perform "bemi".settle_emission();
  if not exists (select from pg_publication where pubname = v_name) then
    execute format('create publication %I with (publish_via_partition_root = true%s)', v_name,
      case when current_setting('server_version_num')::integer >= 180000 then ', publish_generated_columns = stored' end);
    execute format('comment on publication %I is %L', v_name, 'Tables tracked by Bemi');
  end if;
  return v_name;
end
$$;

-- Why a table cannot be captured from the WAL without breaking the application's own writes; NULL where it can.
-- Publications of others count too: with FULL, each has to publish every column that UPDATE and DELETE identify a row by.
create function "bemi".wal_refusal(a_relation oid) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select case
    when c.relkind = 'f' then 'a foreign table writes no WAL'
    when c.relpersistence = 'u' then 'an unlogged table writes no WAL'
    when other.with_columns is not null
      then format('with REPLICA IDENTITY FULL its UPDATEs would fail, for the publication %I has a column list for it', other.with_columns)
    when current_setting('server_version_num')::integer >= 180000 then case
      when generated.is_virtual
        then 'with REPLICA IDENTITY FULL its UPDATEs would fail, for it has virtual generated columns'
      when generated.is_stored and other.without_generated is not null
        then format('with REPLICA IDENTITY FULL its UPDATEs would fail, for the publication %I leaves out its generated columns',
          other.without_generated)
      end
  end
  from pg_class c
    join pg_namespace n on n.oid = c.relnamespace,
    lateral (select bool_or(attgenerated = 'v') as is_virtual, bool_or(attgenerated = 's') as is_stored
      from pg_attribute where attrelid = c.oid and not attisdropped) as generated,
    lateral (select
        (select p.pubname from pg_publication p join pg_publication_rel r on r.prpubid = p.oid
          where r.prrelid = c.oid and to_jsonb(r) ->> 'prattrs' is not null and (p.pubupdate or p.pubdelete)
            and p.pubname <> "bemi".own_name() limit 1) as with_columns,
        (select p.pubname from pg_publication p join pg_publication_tables t on t.pubname = p.pubname
          where t.schemaname = n.nspname and t.tablename = c.relname and (p.pubupdate or p.pubdelete)
            and p.pubname <> "bemi".own_name() and to_jsonb(p) ->> 'pubgencols' <> 's' limit 1) as without_generated
      ) as other
  where c.oid = a_relation
$$;

-- What a table is captured by that comes to be tracked by itself: from the WAL only where that breaks nothing.
create function "bemi".possible_capture(a_relation oid, a_wanted text) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select case when a_wanted = 'wal' and "bemi".wal_refusal(a_relation) is not null then 'trigger' else a_wanted end
$$;

-- Makes a relation's rows decodable: identity FULL on itself, its root in the publication. Returns whether it changed anything.
create function "bemi".publish(a_relation regclass) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  v_reason text := "bemi".wal_refusal(a_relation);
  v_changed boolean := false;
begin
  if v_reason is not null then
    raise object_not_in_prerequisite_state using
      message = format('Cannot capture %s from the Write-Ahead Log, as %s', a_relation, v_reason),
      hint = 'Track it with capture "trigger".';
  end if;
  if (select relreplident from pg_class where oid = a_relation) <> 'f' then
    -- ONLY: a leaf has an identity of its own, which is given back one by one.
    update "bemi".tracked_tables
    set has_full_identity = true,
      former_replica_identity = (select relreplident from pg_class where oid = a_relation),
      former_identity_index = (select indexrelid from pg_index where indrelid = a_relation and indisreplident)
    where relation = a_relation;
    execute format('alter table only %s replica identity full', a_relation);
    v_changed := true;
  end if;
  -- A root stands for its partitions; an inheritance child is published by itself.
  if not (select relispartition from pg_class where oid = a_relation)
    and not exists (select from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
      where r.prrelid = a_relation and p.pubname = "bemi".own_name())
  then
    execute format('alter publication %I add table only %s', "bemi".ensure_publication(), a_relation);
    v_changed := true;
  end if;
  return v_changed;
end
$$;

create function "bemi".withdraw(a_relation regclass) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  v_tracked "bemi".tracked_tables := (select t from "bemi".tracked_tables t where relation = a_relation);
  v_changed boolean := false;
begin
  if exists (select from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
    where r.prrelid = a_relation and p.pubname = "bemi".own_name())
  then
    execute format('alter publication %I drop table only %s', "bemi".own_name(), a_relation);
    v_changed := true;
  end if;
  if v_tracked.has_full_identity and (select relreplident from pg_class where oid = a_relation) = 'f'
  then
    execute format('alter table only %s replica identity %s', a_relation,
      case when v_tracked.former_replica_identity = 'n' then 'nothing'
        when v_tracked.former_replica_identity = 'i' and v_tracked.former_identity_index is not null
          and exists (select from pg_class where oid = v_tracked.former_identity_index)
          then format('using index %I', (select relname from pg_class where oid = v_tracked.former_identity_index))
        else 'default' end);
    update "bemi".tracked_tables set has_full_identity = false, former_identity_index = null where relation = a_relation;
    v_changed := true;
  end if;
  return v_changed;
end
$$;

-- Types whose values are more than a string, by themselves or by what they are made of.
create view "bemi".structured_types as
  select oid, typname, typtype, typbasetype, typelem, typrelid, typsubscript
  from pg_catalog.pg_type where typtype in ('d', 'c') or typcategory = 'A' or typname = 'hstore';

-- Those among these types, with all that they are made of. To to_jsonb int2vector and oidvector are arrays too, though
-- their text has no braces.
create function "bemi".describe_types(a_types oid[]) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
begin
  return (with recursive needed as (
    select t.oid from "bemi".structured_types t where t.oid = any (a_types)
    union
    select d.oid from needed n join "bemi".structured_types t on t.oid = n.oid,
      lateral (
        select t.typbasetype as oid where t.typtype = 'd'
        union all
        select t.typelem
        union all
        select a.atttypid from pg_attribute a where a.attrelid = t.typrelid and t.typtype = 'c' and a.attnum > 0 and not a.attisdropped
      ) d
  )
  select coalesce(jsonb_agg(jsonb_build_object('oid', t.oid::bigint, 'kind', t.typtype, 'name', t.typname,
    'base', t.typbasetype::bigint, 'element', t.typelem::bigint, 'delimiter', coalesce(e.typdelim, ','),
    'isArray', t.typsubscript = 'array_subscript_handler'::regproc,
    'attributes', coalesce((select jsonb_agg(jsonb_build_object('name', a.attname, 'type', a.atttypid::bigint) order by a.attnum)
      from pg_attribute a where a.attrelid = t.typrelid and t.typtype = 'c' and a.attnum > 0 and not a.attisdropped), '[]')
  ) order by t.oid), '[]')
  from "bemi".structured_types t left join pg_type e on e.oid = t.typelem
  where t.oid = any (array(select n.oid from needed n)));
end
$$;

-- What the worker has to know of tracked tables to read their rows in the WAL: of these, or of all if that is NULL. Types
-- are described once for all tables that have the same, and most have none that are more than a string. A partition goes by
-- its root's name: before PostgreSQL 15 its rows can come as its own all the same, when it was attached in their transaction.
create function "bemi".table_facts(a_relations oid[], out relation oid, out facts jsonb) returns setof record
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  with tracked as materialized (
    select c.oid, n.nspname, r.relname, r.relkind, t.root, t.ignored, t.masked, t.masked_numbers, array(
      select distinct a.atttypid from pg_attribute a join "bemi".structured_types y on y.oid = a.atttypid
      where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped order by a.atttypid) as types
    from "bemi".tracked_tables t join pg_class c on c.oid = t.relation
      join pg_class r on r.oid = t.root join pg_namespace n on n.oid = r.relnamespace
    where a_relations is null or t.relation = any (a_relations)
  ), described as materialized (
    select d.types, "bemi".describe_types(d.types) as rows from (select distinct types from tracked) d
  )
  select t.oid, jsonb_build_object('schema', t.nspname, 'name', t.relname, 'keys', "bemi".key_columns(t.root), 'ignored', t.ignored,
    'masked', case when t.masked <> '{}' then "bemi".masked_columns(t.oid, t.masked, t.masked_numbers) else '{}' end,
    'isPartitioned', t.relkind = 'p', 'types', d.rows, 'ancestors', array(
      with recursive up as (
        select i.inhparent, 1 as depth from pg_inherits i where i.inhrelid = t.oid
        union all
        select i.inhparent, u.depth + 1 from up u join pg_inherits i on i.inhrelid = u.inhparent
      )
      select inhparent::bigint from up order by depth
    ))
  from tracked t join described d using (types);
end
$$;

-- The same as it was from an LSN on, since the catalog knows only today: a worker may come to read what was written
-- before a table, its key or a type of its columns was altered or dropped. LSNs count within one cluster.
create table "bemi".table_versions (
  relation oid not null,
  system_identifier text not null,
  from_lsn pg_lsn not null,
  facts jsonb not null,
  primary key (relation, system_identifier, from_lsn)
);

create function "bemi".note_version(a_relation oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  v_system text;
  v_facts jsonb;
  v_last jsonb;
begin
  if not exists (select from "bemi".tracked_tables where relation = a_relation and capture = 'wal') then
    return;
  end if;
  select system_identifier into v_system from "bemi".this_cluster();
  select f.facts into v_facts from "bemi".table_facts(array[a_relation]) f;
  select facts into v_last from "bemi".table_versions
  where relation = a_relation and system_identifier = v_system order by from_lsn desc limit 1;
  if v_facts is distinct from v_last then
    insert into "bemi".table_versions (relation, system_identifier, from_lsn, facts)
    values (a_relation, v_system, case when v_last is null then '0/0' else pg_current_wal_insert_lsn() end, v_facts)
    on conflict (relation, system_identifier, from_lsn) do update set facts = excluded.facts;
    perform "bemi".notify_worker();
  end if;
end
$$;

-- All versions of each table, and its facts of today, which have no LSN, where these are others than the last version's.
create function "bemi".read_tables(out relation bigint, out from_lsn pg_lsn, out facts jsonb) returns setof record
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  with versions as materialized (
    select v.relation, v.from_lsn, v.facts
    from "bemi".table_versions v where v.system_identifier = (select c.system_identifier from "bemi".this_cluster() c)
  ), last_versions as (
    select distinct on (v.relation) v.relation, v.facts from versions v order by v.relation, v.from_lsn desc
  )
  select v.relation::bigint, v.from_lsn, v.facts from versions v
  union all
  select f.relation::bigint, null, f.facts
  from "bemi".table_facts(null) f left join last_versions l on l.relation = f.relation
  where f.facts is distinct from l.facts
$$;

-- Tells a worker that is reading, at this place in the WAL, that what it knows of tables and types is no longer so.
create function "bemi".notify_worker() returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
  select pg_logical_emit_message(true, '_bemi', '3') where exists (select from "bemi".tracked_tables where capture = 'wal')
$$;

-- Slots share one name space in the cluster, so the database's number is part of the name.
create function "bemi".slot_name() returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select "bemi".own_name() || '_' || oid from pg_database where datname = current_database()
$$;
