-- The log: what is kept, where LSNs are comparable, and who may touch it.
-- The schema is always written as the quoted identifier "bemi": it is the one token that the installer replaces.

create table "bemi".settings (
  singleton boolean primary key default true check (singleton),
  track_all boolean not null default false,
  retention interval check (retention > interval '0'),
  partitions_ahead integer not null default 3 check (partitions_ahead between 1 and 120),
  event_trigger boolean not null default false,
  -- How tables are captured that come to be tracked by themselves.
  capture text not null default 'trigger' check (capture in ('trigger', 'wal'))
);

insert into "bemi".settings default values;

-- LSNs and transaction ids restart after a restore, and a promoted replica reuses them: within one source they do not.
create table "bemi".sources (
  id integer generated always as identity primary key,
  system_identifier text not null,
  timeline integer not null,
  database text not null,
  capture text not null check (capture in ('wal', 'trigger')),
  -- A server that was set back to a copy of its files writes other WAL under the same LSNs.
  incarnation integer not null default 0,
  created_at timestamptz not null default clock_timestamp(),
  unique (system_identifier, timeline, database, capture, incarnation)
);

-- Steps of 1024 leave room to put a change that PostgreSQL reports late in front of the one that followed it.
create sequence "bemi".change_sequence as bigint increment by 1024 minvalue 1024;

-- The total order is (source_id, commit_lsn, transaction_index).
-- WAL capture: a transaction is (source_id, commit_lsn), and transaction_index counts its changes from 0.
-- Trigger capture: a transaction is (source_id, transaction_id) with the full 64-bit id; commit_lsn is the WAL position
-- at which the change was written, for the commit's is not known then; transaction_index comes from the sequence.
create table "bemi".changes (
  id uuid not null,
  database text not null,
  schema text not null,
  "table" text not null,
  primary_key text,
  former_primary_key text,
  -- CREATE, UPDATE, DELETE, TRUNCATE or SNAPSHOT. A constraint would be prepared anew for each write.
  operation text not null,
  before jsonb not null default '{}',
  after jsonb not null default '{}',
  context jsonb not null default '{}',
  committed_at timestamptz not null,
  queued_at timestamptz not null,
  created_at timestamptz not null default clock_timestamp(),
  transaction_id bigint not null,
  position bigint not null,
  source_id integer not null,
  commit_lsn pg_lsn not null,
  transaction_index bigint not null
) partition by range (committed_at);

comment on table "bemi".changes is 'Every change to a tracked table, with its context. Append-only.';

create index changes_order on "bemi".changes (source_id, commit_lsn, transaction_index);

-- A hash of the key, since a long key exceeds what a btree row may hold. Compare primary_key itself beside it.
create index changes_key on "bemi".changes ("table", hashtextextended(primary_key, 0), committed_at);

create index changes_context on "bemi".changes using gin (context jsonb_path_ops);

-- Time ranges, and a look-up by id: an id is a UUIDv7 that begins with committed_at, but where it was imported.
create index changes_time on "bemi".changes using brin (committed_at) with (pages_per_range = 32);

create table "bemi".changes_default partition of "bemi".changes default;

-- Append-only: only a function of the owner, which raises the flag, may rewrite history (erasure, draining a partition).
-- The flag alone is worth nothing, since anybody can set it: the role has to be the owner's as well.
create function "bemi".refuse_rewrite() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('bemi.maintenance', true) = 'on'
    and current_user = (select pg_get_userbyid(relowner) from pg_class where oid = tg_relid)
  then
    return case tg_op when 'DELETE' then old when 'UPDATE' then new end;
  end if;
  raise insufficient_privilege using
    message = format('%s on %I.%I is refused: the log of changes is append-only', tg_op, tg_table_schema, tg_table_name),
    hint = 'Old changes leave by retention: see maintain() in the same schema.';
end
$$;

-- Cloned to every partition by PostgreSQL; TRUNCATE has statement triggers only, so guard_partition() adds those.
create trigger append_only before update or delete on "bemi".changes
  for each row execute function "bemi".refuse_rewrite();
create trigger append_only_truncate before truncate on "bemi".changes
  for each statement execute function "bemi".refuse_rewrite();

-- Takes back what default privileges gave to anybody but the owner.
create function "bemi".take_back_grants(a_relation regclass) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  v_grantee text;
begin
  for v_grantee in
    select distinct case g.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end
    from pg_class c, aclexplode(c.relacl) g
    where c.oid = a_relation and g.grantee <> c.relowner
  loop
    execute format('revoke all on %s %s from %s',
      case (select relkind from pg_class where oid = a_relation) when 'S' then 'sequence' else 'table' end,
      a_relation, v_grantee);
  end loop;
end
$$;

create function "bemi".guard_partition(a_partition regclass) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  perform "bemi".take_back_grants(a_partition);
  -- A publication of all tables, somebody's, would refuse what rewrites the log, and with it the application's write.
  execute format('alter table %s replica identity full', a_partition);
  execute format('create trigger append_only_truncate before truncate on %s
    for each statement execute function "bemi".refuse_rewrite()', a_partition);
end
$$;

select "bemi".guard_partition('"bemi".changes_default');

-- One month's partition: built aside, filled with what the default partition holds of it, then attached.
create function "bemi".add_partition(a_month date) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '2s'
as $$
declare
  v_name text := 'changes_p' || to_char(a_month, 'YYYYMM');
  v_from text := to_char(a_month, 'YYYY-MM-DD') || ' 00:00:00+00';
  v_to text := to_char(a_month + interval '1 month', 'YYYY-MM-DD') || ' 00:00:00+00';
begin
  if to_regclass(format('"bemi".%I', v_name)) is not null then
    return false;
  end if;
  lock table "bemi".changes_default in access exclusive mode;
  -- Event triggers of others, such as another Bemi's, run within this command and look for their names in public.
  perform set_config('search_path', 'pg_catalog, public, pg_temp', true);
  execute format('create table "bemi".%I (like "bemi".changes including defaults including constraints)', v_name);
  perform set_config('search_path', 'pg_catalog, pg_temp', true);
  execute format('select "bemi".guard_partition(%L)', format('"bemi".%I', v_name));
  if exists (select from "bemi".changes_default where committed_at >= v_from::timestamptz and committed_at < v_to::timestamptz) then
    perform set_config('bemi.maintenance', 'on', true);
    execute format('with moved as (
        delete from "bemi".changes_default where committed_at >= %L and committed_at < %L returning *
      ) insert into "bemi".%I select * from moved', v_from, v_to, v_name);
    perform set_config('bemi.maintenance', '', true);
  end if;
  execute format('alter table "bemi".changes attach partition "bemi".%I for values from (%L) to (%L)', v_name, v_from, v_to);
  return true;
end
$$;

-- While there is one, nothing in plain_reads counts: something that it stands on was changed, of one table or (NULL) of all.
create table "bemi".plain_read_ends (relation regclass);

-- Partitions ahead, the default partition drained, what is past its retention dropped.
-- A table that stays locked is reported as skipped and done the next time: nothing fails for it.
create function "bemi".maintain() returns table (action text, partition text)
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '2s' set timezone = 'UTC'
as $$
declare
  v_settings "bemi".settings;
  v_month date;
  v_partition record;
begin
  perform pg_advisory_xact_lock(hashtextextended('bemi.maintain', '"bemi".changes'::regclass::oid::bigint));
  select * into strict v_settings from "bemi".settings;
  -- Looked into anew at the commit, where two were at it at once.
  insert into "bemi".plain_read_ends (relation) select null from "bemi".plain_read_ends limit 1;
  for v_month in
    select date_trunc('month', now())::date + make_interval(months => n)
    from generate_series(0, v_settings.partitions_ahead) as n
    union
    select date_trunc('month', committed_at)::date from "bemi".changes_default
    where v_settings.retention is null or committed_at >= now() - v_settings.retention
    order by 1
  loop
    partition := 'changes_p' || to_char(v_month, 'YYYYMM');
    begin
      if "bemi".add_partition(v_month) then
        action := 'created';
        return next;
      end if;
    exception when lock_not_available or deadlock_detected then
      action := 'skipped';
      return next;
    end;
  end loop;
  if v_settings.retention is null then
    return;
  end if;
  for v_partition in
    select c.relname, to_date(right(c.relname, 6), 'YYYYMM') + interval '1 month' as ends_at
    from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = '"bemi".changes'::regclass and c.relname ~ '^changes_p[0-9]{6}$'
    order by 1
  loop
    continue when v_partition.ends_at > now() - v_settings.retention;
    partition := v_partition.relname;
    begin
      execute format('drop table "bemi".%I', v_partition.relname);
      action := 'dropped';
    exception when lock_not_available or deadlock_detected then
      action := 'skipped';
    end;
    return next;
    -- The oldest goes first: a month that is missing in between would not be noticed.
    exit when action = 'skipped';
  end loop;
end
$$;

create function "bemi".register_source(a_system text, a_timeline integer, a_database text, a_capture text) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  v_id integer;
begin
  loop
    select id into v_id from "bemi".sources
    where system_identifier = a_system and timeline = a_timeline and database = a_database and capture = a_capture
    order by incarnation desc limit 1;
    if found then
      return v_id;
    end if;
    insert into "bemi".sources (system_identifier, timeline, database, capture)
    values (a_system, a_timeline, a_database, a_capture)
    on conflict do nothing;
  end loop;
end
$$;

-- Where this cluster's LSNs and transaction ids belong. A restored dump or a promoted replica gets a source of its own.
create function "bemi".this_cluster(out system_identifier text, out timeline integer)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  select system_identifier::text, ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer
  from pg_control_system()
$$;

create function "bemi".current_source(a_capture text) returns integer
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
  select "bemi".register_source(c.system_identifier, c.timeline, current_database(), a_capture)
  from "bemi".this_cluster() as c
$$;

-- The view under which Bemi's documentation and readers know the log; left out where the name is taken.
create function "bemi".ensure_view() returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  if to_regclass('public.changes') is null and to_regnamespace('public') is not null
    and has_schema_privilege('public', 'CREATE')
  then
    create view public.changes as
      select id, database, schema, "table", primary_key, operation, before, after, context,
        committed_at, queued_at, created_at, transaction_id, position
      from "bemi".changes;
    comment on view public.changes is 'Changes of tracked tables, from "bemi".changes';
    perform "bemi".take_back_grants('public.changes');
  end if;
end
$$;

select "bemi".ensure_view();
select from "bemi".maintain();
