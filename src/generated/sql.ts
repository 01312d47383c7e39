// Generated from sql/ by `npm run generate`. Do not edit.
// deno-fmt-ignore-file
/** One step of the schema. `"bemi"` stands for the schema's quoted name. */
export interface Migration {
  readonly version: number;
  readonly name: string;
  readonly sql: string;
}

export const migrations: readonly Migration[] = [
  { version: 1, name: "changes", sql: `-- The log: what is kept, where LSNs are comparable, and who may touch it.
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
` },
  { version: 2, name: "context", sql: `-- The context of a statement: what the application said, and what the database knows. Nothing here ever raises.

create function "bemi".parse_object(a_text text) returns jsonb
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
declare
  v_value jsonb;
begin
  v_value := a_text::jsonb;
  return case jsonb_typeof(v_value) when 'object' then v_value end;
exception when others then
  return null;
end
$$;

comment on function "bemi".parse_object(text) is 'The JSON object that a text holds, or NULL where it holds anything else.';

-- The statement up to the end of its last \`Bemi*/\`, where nothing but blanks, semicolons and other comments follow: Rails
-- and tracers add theirs behind. Each of those is taken off whole, so that none can begin inside a literal: one that
-- holds another comment's end, or a \`--\`, is not looked behind.
create function "bemi".before_comments(a_statement text) returns text
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
declare
  v_rest text := rtrim(a_statement, E' \\t\\r\\n;');
  v_at integer;
  v_body text;
begin
  for v_count in 1 .. 8 loop
    exit when right(v_rest, 7) = ' Bemi*/' or right(v_rest, 2) <> '*/';
    v_at := position('*/' in reverse(left(v_rest, -2)));
    v_body := right(v_rest, v_at + 1);
    if v_at = 0 or position('*/' in v_body) < length(v_body) - 1 or v_body like '%--%' then
      return '';
    end if;
    v_rest := rtrim(left(v_rest, -(v_at + 3)), E' \\t\\r\\n;');
  end loop;
  return v_rest;
end
$$;

-- Only a comment at the very end of the statement counts: a literal cannot reach there. Of several openings the last
-- is taken; what an earlier, quoted one would add does not parse.
create function "bemi".comment_context(a_statement text) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select case when found.at > 0 then
    left(split.body, -char_length(' Bemi*/')) end
  from (select "bemi".before_comments(a_statement) as statement) as trimmed,
    lateral (select case when right(trimmed.statement, 7) = ' Bemi*/'
      then position(reverse('/*Bemi ') in reverse(trimmed.statement)) else 0 end as at) as found,
    lateral (select right(trimmed.statement, greatest(found.at - 1, 0)) as body) as split
$$;

create function "bemi".without_comment(a_statement text, a_comment text) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select rtrim(left("bemi".before_comments(a_statement), -char_length('/*Bemi ' || a_comment || ' Bemi*/')), E' \\t\\r\\n;')
$$;

-- The JSON object that a comment means, NULL where it means none. The worker reads other Bemis' messages the same way.
-- Without a context, Rails writes null and TypeORM undefined. Through psycopg2, SQLAlchemy puts a statement's values into
-- its copy of it, which comes last and may then be no JSON: what stands before it is still good.
-- Django percent-escapes the characters below and no others, and leaves none of them as it is; where no parameters are
-- bound it doubles each \`%\` besides. Nobody else writes Python's blanks, SQL last, and none of these characters.
create function "bemi".comment_object(a_comment text) returns text
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
declare
  v_text text := case when a_comment in ('null', 'undefined') then '{}' else a_comment end;
  v_character text;
begin
  if v_text ~ '%(2[1346AB]|3[BCEF]|40|5E|60|7C)' and v_text ~ '[{ ]"SQL": "'
    and v_text ~ E'^[A-Za-z0-9_{},:"''\\\\\\\\/=()% .~[\\\\]-]*$'
  then
    if replace(v_text, '%%', '') not like E'%\\\\%%' then
      v_text := replace(v_text, '%%', '%');
    end if;
    foreach v_character in array string_to_array('!#$&*+;<>?@^\`|', null) loop
      v_text := replace(v_text, '%' || upper(to_hex(ascii(v_character))), v_character);
    end loop;
  end if;
  if "bemi".parse_object(v_text) is not null then
    return v_text;
  end if;
  v_text := regexp_replace(v_text, ', "SQL": ".*$', '}');
  return case when "bemi".parse_object(v_text) is not null then v_text end;
end
$$;

-- The same of a client's statement. Once their texts are left out, so is the one that Django puts into the comment.
create function "bemi".commented(a_comment text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  v_object text := "bemi".comment_object(a_comment);
begin
  return case when "bemi".keeps_statements() then v_object else (v_object::jsonb - 'SQL')::text end;
end
$$;

-- What the comment of the client's statement says, for what is written deeper than that: current_query() is the client's
-- there too. Read once in each statement and kept in a transaction-local setting, as \`time\` or \`time object\`: to read a
-- statement of megabytes for each row that it leads to would be quadratic. The time is in a form that no setting changes.
create function "bemi".outer_comment() returns text
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  v_time text := extract(epoch from statement_timestamp())::text;
  v_known text := current_setting('bemi.commented', true);
begin
  if split_part(v_known, ' ', 1) is distinct from v_time then
    v_known := v_time || coalesce(' ' || case when current_query() like '% Bemi*/%'
      then "bemi".commented("bemi".comment_context(current_query())) end, '');
    perform set_config('bemi.commented', v_known, true);
  end if;
  return nullif(substr(v_known, length(v_time) + 2), '');
end
$$;

-- The role in force: inside a SECURITY DEFINER function current_user is the definer.
create function "bemi".current_role_name() returns text
language sql stable
return coalesce(nullif(current_setting('role', true), 'none'), session_user);

create function "bemi".database_facts() returns jsonb
language sql stable
return jsonb_build_object('user', session_user, 'role', "bemi".current_role_name(), 'pid', pg_backend_pid(),
  'application_name', coalesce(current_setting('application_name', true), ''));

-- What is stored beside a change: the application's keys, then \`client\` and \`jwt\` (PostgREST), \`SQL\`, and \`db\`, which
-- always wins. a_statement is the client's statement, NULL where it is another's; a_context what the application said, when
-- the statement began.
create function "bemi".current_context(
  a_statement text default current_query(), a_context text default current_setting('bemi.context', true)
) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  v_context jsonb := "bemi".parse_object(nullif(a_context, ''));
  v_comment text;
  v_commented jsonb;
  v_object jsonb;
  v_statement text := a_statement;
  v_apart jsonb := '{}';
begin
  if v_statement like '% Bemi*/%' then
    v_comment := "bemi".comment_context(v_statement);
    v_commented := "bemi".parse_object("bemi".commented(v_comment));
    if v_commented is not null then
      v_statement := "bemi".without_comment(v_statement, v_comment);
    end if;
  end if;
  -- Kept apart, for they differ in trust: the server verified the claims, the browser wrote the header.
  if current_setting('request.jwt.claims', true) <> '' or current_setting('request.headers', true) <> '' then
    v_object := "bemi".parse_object(nullif(current_setting('request.jwt.claims', true), ''));
    v_apart := case when v_object is null then '{}' else jsonb_build_object('jwt', v_object) end;
    v_object := "bemi".parse_object("bemi".parse_object(nullif(current_setting('request.headers', true), '')) ->> 'x-bemi-context');
    v_apart := v_apart || case when v_object is null then '{}' else jsonb_build_object('client', v_object) end;
  end if;
  return case when v_statement is null or not "bemi".keeps_statements() then '{}' else jsonb_build_object('SQL', left(v_statement, 1000)) end
    || coalesce(v_context, case when coalesce(a_context, '') = '' then v_commented end, '{}')
      - array['db', 'jwt', 'client']
    || v_apart
    || jsonb_build_object('db', "bemi".database_facts()
      || case when v_context is null and a_context <> ''
        then '{"context_error": "not a JSON object"}' else '{}' end::jsonb);
end
$$;
` },
  { version: 3, name: "tracking", sql: `-- Which tables are tracked, and how: track(), untrack(), and the triggers of each.

-- regclass, since it survives dump and restore by name where a plain OID does not.
create table "bemi".tracked_tables (
  relation regclass primary key,
  root regclass not null,
  schema text not null,
  name text not null,
  capture text not null default 'trigger' check (capture in ('trigger', 'wal')),
  ignored text[] not null default '{}',
  masked text[] not null default '{}',
  -- Beside the names: a renamed column stays masked under both of its names.
  masked_numbers smallint[] not null default '{}',
  is_strict boolean not null default false,
  -- Whether statements that match nothing are to cost nothing, at the price of a check for each row that matches.
  is_polled boolean not null default false,
  key_columns text[] not null default '{}',
  -- See needs_row_level().
  row_level boolean not null default false,
  former_replica_identity "char" not null,
  former_identity_index regclass,
  -- Whether the identity in force is ours, and so to be taken back.
  has_full_identity boolean not null default false,
  -- From when on every write is captured; set once the table is locked.
  tracked_at timestamptz not null default '-infinity',
  -- Until when it was captured from the WAL, where it was since then: what was lost of the WAL is missing all the same.
  left_wal_at timestamptz,
  -- What a command did could not be followed, so that the next one tries again.
  is_pending boolean not null default false,
  -- What trigger capture writes to, known for one start of the server in one database: the cluster's identity is in a
  -- file, too slow to read each time.
  source_id integer,
  source_database name,
  source_known_since timestamptz
);

-- What untrack() took out, so that it stays out though all tables are tracked; what it was called on beside each.
create table "bemi".untracked (
  relation regclass primary key,
  root regclass not null
);

-- What the messages of context triggers have and leave out.
create table "bemi".emission (
  singleton boolean primary key default true check (singleton),
  -- A statement's text may hold any column's value: once one table masks some, no text is kept.
  omits_statements boolean not null,
  -- The secret that messages in the Write-Ahead Log have, once they are sealed.
  seal text
);

-- Whether all of that is as it is at first, and the database in an encoding whose bytes messages may have as they are. The
-- answer is the body of this function, which PL/pgSQL takes into its plans: to read the table before each statement would
-- cost as much as the message.
create function "bemi".is_plain_emission() returns boolean
language sql stable
return false;

-- The same for trigger capture, which needs to know of statements alone.
create function "bemi".keeps_statements() returns boolean
language sql stable
return true;

-- Whether event triggers notice what happens to tables, so that it is known here. As follow_ddl() found it.
create function "bemi".follows_ddl() returns boolean
language sql stable
return false;

-- Gives these functions their bodies. Also called where a slot is made: a dump may have come from a database in another
-- encoding.
create function "bemi".settle_emission() returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  v_keeps boolean := (select not omits_statements from "bemi".emission);
  v_is_plain boolean := v_keeps and (select seal is null from "bemi".emission) and getdatabaseencoding() in ('UTF8', 'SQL_ASCII');
begin
  if v_is_plain <> "bemi".is_plain_emission() then
    execute 'create or replace function "bemi".is_plain_emission() returns boolean language sql stable return ' || v_is_plain;
  end if;
  if v_keeps <> "bemi".keeps_statements() then
    execute 'create or replace function "bemi".keeps_statements() returns boolean language sql stable return ' || v_keeps;
  end if;
end
$$;

create function "bemi".note_emission() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  perform "bemi".settle_emission();
  return null;
end
$$;

create trigger note_emission after insert or update on "bemi".emission
  for each row execute function "bemi".note_emission();

insert into "bemi".emission (omits_statements) values (false);

create function "bemi".note_masks() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  update "bemi".emission e set omits_statements = not e.omits_statements
  where e.omits_statements <> exists (select from "bemi".tracked_tables where masked <> '{}');
  return null;
end
$$;

create trigger note_masks after insert or update or delete or truncate on "bemi".tracked_tables
  for each statement execute function "bemi".note_masks();

-- The columns of the primary key, in key order; none where there is no key.
create function "bemi".key_columns(a_relation oid) returns text[]
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg(a.attname::text order by k.ordinality), '{}')
  from pg_index i, unnest(i.indkey) with ordinality as k (attnum, ordinality), pg_attribute a
  where i.indrelid = a_relation and i.indisprimary and a.attrelid = a_relation and a.attnum = k.attnum
    and k.ordinality <= i.indnkeyatts
$$;

create function "bemi".composite_key(a_row jsonb, a_columns text[]) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select jsonb_agg(a_row -> c.name order by c.ordinality)::text
  from unnest(a_columns) with ordinality as c (name, ordinality)
$$;

-- A row's identity as text: one column's text, a JSON array in key order, or NULL without a key.
-- With a RETURN, so that it is inlined where it is called for each row.
create function "bemi".key_of(a_row jsonb, a_columns text[]) returns text
language sql immutable
return case cardinality(a_columns)
  when 0 then null
  when 1 then a_row ->> a_columns[1]
  else "bemi".composite_key(a_row, a_columns)
end;

-- What is never written down: the columns masked by name, and whatever the masked columns are called today.
create function "bemi".masked_columns(a_relation oid, a_masked text[], a_numbers smallint[]) returns text[]
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select a_masked || coalesce(array_agg(a.attname::text), '{}')
  from pg_attribute a
  where a.attrelid = a_relation and a.attnum = any (a_numbers)
$$;

-- Names that the cluster or the database share, such as the publication's: unlike those of another installation.
create function "bemi".own_name() returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select 'bemi' || case when nspname <> 'bemi' then '_' || left(md5(nspname), 6) else '' end
  from pg_namespace where oid = '"bemi"'::regnamespace
$$;

-- The triggers that belong to this installation: their functions are in its schema. Names begin with \`!\`, to sort and
-- so to fire ahead of the application's own; a second installation, in another schema, has names of its own.
create view "bemi".own_triggers as
  select t.tgrelid::regclass as relation, t.tgname as name, t.tgenabled as enabled, t.tgparentid <> 0 as is_cloned, t.tgtype as events,
    t.tgisinternal as is_internal
  from pg_trigger t join pg_proc p on p.oid = t.tgfoid
  -- To PostgreSQL 14 what a partition has from its root is internal.
  where p.pronamespace = '"bemi"'::regnamespace and (not t.tgisinternal or t.tgparentid <> 0);

create function "bemi".trigger_name(a_purpose text) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select '!' || "bemi".own_name() || '_' || a_purpose
$$;

-- Whether a trigger is one of an installation's, this or another, which write no table but their log, or of another
-- Bemi's, which write none at all.
create function "bemi".is_capture(a_name name) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select a_name like E'!bemi\\\\_%' or a_name like E'\\\\_bemi\\\\_row\\\\_trigger\\\\_%'
$$;

-- A table with its partitions and inheritance children, itself first.
create function "bemi".with_descendants(a_relation regclass) returns setof regclass
language sql stable set search_path = pg_catalog, pg_temp
as $$
  with recursive family as (
    select a_relation::oid as relation, 0 as depth
    union
    select i.inhrelid, f.depth + 1 from family f join pg_inherits i on i.inhparent = f.relation
  )
  select relation::regclass from family group by relation order by min(depth)
$$;

-- Statement-level capture reads transition tables. It reports a statement after all that its row triggers did, so a
-- key that such a trigger touches again would get its history the wrong way round: those tables are captured by row. One
-- that is captured from the WAL needs of it to have noted where a statement begins, for children that are not: an unlogged
-- one's rows are captured by row, and a statement that names the parent fires the parent's triggers alone.
create function "bemi".needs_row_level(a_relation oid, a_capture text) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
  with recursive family as (
    select a_relation as relation
    union
    select case when i.inhrelid = f.relation then i.inhparent else i.inhrelid end
    from family f join pg_inherits i on f.relation in (i.inhrelid, i.inhparent)
  ), reached as (
    -- Every table that a foreign key action of the family can write, and so on.
    select c.conrelid as relation
    from family f join pg_constraint c on c.confrelid = f.relation
    where c.contype = 'f' and (c.confdeltype in ('c', 'n', 'd') or c.confupdtype in ('c', 'n', 'd'))
    union
    select c.conrelid
    from reached r join pg_constraint c on c.confrelid = r.relation
    where c.contype = 'f' and (c.confdeltype in ('c', 'n', 'd') or c.confupdtype in ('c', 'n', 'd'))
  )
  select case when a_capture = 'wal' then exists (
    select from "bemi".with_descendants(a_relation) as d (relation) join "bemi".tracked_tables t using (relation)
      join pg_class c on c.oid = d.relation
    where t.capture = 'trigger' and not c.relispartition)
  else exists (select from pg_class where oid = a_relation and relkind = 'f')
    -- What a MERGE moves to another partition is not among the rows of its UPDATE, but of a DELETE and an INSERT, whose
    -- triggers it may not fire.
    or exists (select from pg_class where oid = a_relation and (relkind = 'p' or relispartition))
      and current_setting('server_version_num')::integer >= 150000
    -- Of a row that is routed to a partition the transition table may have what was there before the columns were generated.
    or exists (select from family f join pg_attribute a on a.attrelid = f.relation
      where a.attgenerated = 's' and (select relkind = 'p' or relispartition from pg_class where oid = a_relation))
    -- An inheritance child's own columns are missing from its parent's transition table.
    or exists (select from pg_inherits i join pg_class c on c.oid = i.inhrelid
      where a_relation in (i.inhrelid, i.inhparent) and not c.relispartition)
    or exists (select from pg_trigger t join family f on t.tgrelid = f.relation
      where not t.tgisinternal and not "bemi".is_capture(t.tgname) and t.tgtype & 1 = 1 and t.tgenabled <> 'D')
    or exists (select from reached r join family f using (relation))
    or exists (select from reached r join pg_trigger t on t.tgrelid = r.relation
      where not t.tgisinternal and not "bemi".is_capture(t.tgname) and t.tgenabled <> 'D')
  end
$$;

-- The triggers that a tracked table should have, as name and definition.
create function "bemi".wanted_triggers(a_relation oid, a_capture text, a_row_level boolean)
returns table (name text, definition text, events smallint)
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select "bemi".trigger_name(w.purpose), format(w.definition, "bemi".trigger_name(w.purpose), a_relation::regclass),
    -- Of pg_trigger.tgtype, where they depend on an option: BEFORE with INSERT and TRUNCATE, or with all four.
    case when w.purpose = 'context' then case when t.is_polled then 2 + 4 + 32 else 2 + 4 + 8 + 16 + 32 end end::smallint
  from pg_class c left join "bemi".tracked_tables t on t.relation = c.oid, lateral (values
    ('context', null, case when t.is_polled
      then 'create trigger %I before insert or truncate on %s for each statement execute function "bemi".emit_context()'
      else 'create trigger %I before insert or update or delete or truncate on %s for each statement execute function "bemi".emit_context()' end),
    ('hold', null, 'create trigger %I before update or delete on %s for each statement execute function "bemi".hold_context()'),
    ('held', true, 'create trigger %I before update or delete on %s for each row when (current_setting(''bemi.held'', true) <> '''') execute function "bemi".emit_held()'),
    ('insert', false, 'create trigger %I after insert on %s referencing new table as bemi_new for each statement execute function "bemi".capture_statement()'),
    ('update', false, 'create trigger %I after update on %s referencing old table as bemi_old new table as bemi_new for each statement execute function "bemi".capture_statement()'),
    ('delete', false, 'create trigger %I after delete on %s referencing old table as bemi_old for each statement execute function "bemi".capture_statement()'),
    ('row', true, 'create trigger %I after insert or update or delete on %s for each row execute function "bemi".capture_row()'),
    ('begin', true, 'create trigger %I before insert or update or delete on %s for each statement execute function "bemi".begin_statement()'),
    ('end', true, 'create trigger %I after insert or update or delete on %s for each statement execute function "bemi".end_statement()'),
    ('truncating', null, 'create trigger %I before truncate on %s for each statement execute function "bemi".begin_truncate()'),
    ('truncate', null, 'create trigger %I after truncate on %s for each statement execute function "bemi".capture_truncate()')
  ) as w (purpose, row_level, definition)
  where c.oid = a_relation
    and (w.purpose in ('begin', 'end') or (w.purpose in ('context', 'hold', 'held')) = (a_capture = 'wal'))
    and (w.row_level is null or w.row_level = a_row_level or w.purpose = 'held')
    and (w.purpose not in ('hold', 'held') or t.is_polled)
    and not (w.purpose = 'truncate' and c.relkind = 'f')
    and not (w.purpose = 'truncating' and c.relkind <> 'p' and not c.relispartition)
    -- A partition gets its row trigger from the root, by PostgreSQL itself.
    and not (w.purpose in ('row', 'held') and c.relispartition)
$$;

-- Gives one tracked table the triggers it should have; touches nothing, and so locks nothing, where they are there.
create function "bemi".attach(a_relation regclass) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  v_capture text := (select capture from "bemi".tracked_tables where relation = a_relation);
  v_row_level boolean := "bemi".needs_row_level(a_relation, v_capture);
  v_trigger record;
  v_changed boolean := false;
begin
  for v_trigger in
    select o.name from "bemi".own_triggers o
    where o.relation = a_relation and not o.is_cloned
      and o.name not in (select w.name from "bemi".wanted_triggers(a_relation, v_capture, v_row_level) w
        where w.events is null or w.events = o.events)
  loop
    execute format('drop trigger %I on %s', v_trigger.name, a_relation);
    v_changed := true;
  end loop;
  for v_trigger in
    select w.name, w.definition from "bemi".wanted_triggers(a_relation, v_capture, v_row_level) w
    where not exists (select from "bemi".own_triggers o where o.relation = a_relation and o.name = w.name)
  loop
    execute v_trigger.definition;
    v_changed := true;
  end loop;
  for v_trigger in
    select o.name from "bemi".own_triggers o
    where o.relation = a_relation and o.enabled <> 'A'
      -- Which a superuser alone may do, and before PostgreSQL 15 nobody else may set the role that it is about.
      and (not o.is_internal or (select rolsuper from pg_roles where rolname = current_user))
  loop
    -- ALWAYS: session_replication_role = replica must not switch tracking off.
    execute format('alter table only %s enable always trigger %I', a_relation, v_trigger.name);
    v_changed := true;
  end loop;
  if v_capture = 'wal' then
    v_changed := "bemi".publish(a_relation) or v_changed;
  else
    v_changed := "bemi".withdraw(a_relation) or v_changed;
  end if;
  update "bemi".tracked_tables t
  set row_level = v_row_level, key_columns = "bemi".key_columns(t.root), schema = n.nspname, name = c.relname, is_pending = false
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where t.relation = a_relation and c.oid = a_relation
    and (t.row_level, t.key_columns, t.schema, t.name, t.is_pending)
      is distinct from (v_row_level, "bemi".key_columns(t.root), n.nspname::text, c.relname::text, false);
  if exists (select from "bemi".tracked_tables where relation = a_relation and root = a_relation) then
    perform "bemi".remember(a_relation);
  end if;
  if v_changed and v_capture = 'wal' then
    perform "bemi".note_version(a_relation);
  elsif v_changed then
    -- Here, for where the first write registered it, those of others would wait for its commit.
    perform "bemi".source_of_this_start(a_relation);
  end if;
  return v_changed;
end
$$;

-- The same for tables that this one's way of being tracked means something to: see needs_row_level().
create function "bemi".attach_others(a_relation regclass) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  v_relation regclass;
begin
  perform set_config('bemi.reconciling', 'on', true);
  for v_relation in select "bemi".of_other_level(array[a_relation::oid]) loop
    perform "bemi".attach(v_relation);
  end loop;
  perform set_config('bemi.reconciling', '', true);
end
$$;

create function "bemi".detach(a_relation regclass) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  v_name name;
begin
  for v_name in
    select o.name from "bemi".own_triggers o where o.relation = a_relation and not o.is_cloned
  loop
    execute format('drop trigger %I on %s', v_name, a_relation);
  end loop;
  perform "bemi".withdraw(a_relation);
end
$$;

-- Whether a schema holds an installation, this or another: two that track each other would never come to an end.
create function "bemi".is_installation(a_schema oid) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select exists (select from pg_class where relnamespace = a_schema and relname = 'tracked_tables')
    and exists (select from pg_proc where pronamespace = a_schema and proname in ('refuse_rewrite', 'own_name') having count(distinct proname) = 2)
$$;

create function "bemi".refusal(a_relation regclass) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select case
    when n.nspname = 'pg_catalog' or n.nspname = 'information_schema' or n.nspname like E'pg\\\\_toast%' then 'it is a system catalog'
    when n.oid = '"bemi".changes'::regclass::oid or n.nspname = (select nspname from pg_namespace where oid = (select relnamespace from pg_class where oid = '"bemi".changes'::regclass)) then 'it belongs to the log itself'
    when "bemi".is_installation(n.oid) then 'it belongs to another installation of Bemi'
    when c.relpersistence = 't' then 'it is temporary'
    when c.relkind = 'v' then 'it is a view: track the tables that it reads'
    when c.relkind = 'm' then 'it is a materialized view'
    when c.relkind not in ('r', 'p', 'f') then 'it is not a table'
  end
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where c.oid = a_relation
$$;

-- Whether a table is another Bemi's log: see importChanges().
create function "bemi".is_other_log(a_relation oid) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select count(*) = 13 from pg_attribute
  where attrelid = a_relation and not attisdropped and attname in ('id', 'database', 'schema', 'table', 'primary_key', 'operation',
    'before', 'after', 'context', 'committed_at', 'queued_at', 'transaction_id', 'position')
$$;

-- The tables that were untracked, and what inherits from them, tracked ones aside. A partition goes with its root.
create function "bemi".left_out() returns table (relation regclass, root regclass)
language sql stable set search_path = pg_catalog, pg_temp
as $$
  with recursive family as (
    select u.relation::oid as relation, u.root::oid as root from "bemi".untracked u
    where not exists (select from "bemi".tracked_tables t where t.relation in (u.relation, pg_partition_root(u.relation)))
    union
    select i.inhrelid, f.root from family f join pg_inherits i on i.inhparent = f.relation
    where not exists (select from "bemi".tracked_tables t where t.relation = i.inhrelid)
  )
  select f.relation::regclass, f.root::regclass from family f
$$;

-- What "every table" means: the ordinary and partitioned ones that can be tracked, and are neither an extension's nor
-- a log, nor were untracked. Of some relations, those that it means.
create function "bemi".all_tables(a_among oid[] default null) returns setof regclass
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select c.oid::regclass from pg_class c
  where c.relkind in ('r', 'p') and not c.relispartition and (a_among is null or c.oid = any (a_among))
    and "bemi".refusal(c.oid) is null and not "bemi".is_other_log(c.oid)
    and not exists (select from pg_depend where classid = 'pg_class'::regclass and objid = c.oid and deptype = 'e')
    and c.oid not in (select l.relation from "bemi".left_out() as l)
$$;

-- Options: capture, ignore (columns whose change alone records nothing), mask (columns absent from every copy),
-- strict (a failure of the capture fails the write), polled (UPDATE and DELETE often match nothing). What is left out keeps its former value.
create function "bemi".track(a_relation regclass, a_options jsonb default '{}') returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  v_reason text := "bemi".refusal(a_relation);
  v_root regclass := coalesce(pg_partition_root(a_relation), a_relation);
  v_unknown text;
  v_ignored text[] := case when a_options ? 'ignore' then array(select jsonb_array_elements_text(a_options -> 'ignore')) end;
  v_masked text[] := case when a_options ? 'mask' then array(select jsonb_array_elements_text(a_options -> 'mask')) end;
  v_capture text := a_options ->> 'capture';
  v_relation regclass;
begin
  if v_reason is not null then
    raise wrong_object_type using message = format('Cannot track %s, as %s', a_relation, v_reason),
      hint = 'What can be tracked are tables, partitioned and foreign ones too.';
  end if;
  if not (select pg_has_role(session_user, relowner, 'usage') from pg_class where oid = a_relation) then
    raise insufficient_privilege using
      message = format('Cannot track %s, as %I does not own it', a_relation, session_user),
      hint = 'Run this as the owner of the table.';
  end if;
  if v_capture not in ('trigger', 'wal') then
    raise invalid_parameter_value using message = format('Unknown capture %L', v_capture),
      hint = 'Capture is trigger or wal.';
  end if;
  select string_agg(format('%I', o), ', ') into v_unknown
  from jsonb_object_keys(a_options) as o where o not in ('capture', 'ignore', 'mask', 'strict', 'polled');
  if v_unknown is not null then
    raise invalid_parameter_value using message = format('Unknown option %s', v_unknown),
      hint = 'Options are capture, ignore, mask, strict and polled.';
  end if;
  select string_agg(format('%I', o), ', ') into v_unknown
  from unnest(v_ignored || v_masked) as o
  where not exists (select from pg_attribute where attrelid = v_root and attname = o and attnum > 0 and not attisdropped);
  if v_unknown is not null then
    raise undefined_column using message = format('Cannot track %s, as it has no column %s', a_relation, v_unknown),
      hint = format('Name columns exactly as the catalog has them, without quotes: %s.',
        (select string_agg(attname, ', ' order by attnum) from pg_attribute where attrelid = v_root and attnum > 0 and not attisdropped));
  end if;
  if v_masked && "bemi".key_columns(v_root) then
    raise invalid_parameter_value using
      message = format('Cannot mask the primary key of %s: it identifies the changes', a_relation),
      hint = 'Mask other columns, or give the table a key that may be seen.';
  end if;
  delete from "bemi".untracked u where v_root in (u.relation, u.root, pg_partition_root(u.relation));
  -- A child that was untracked by its own name stays so.
  for v_relation in
    select d.relation from "bemi".with_descendants(v_root) as d (relation)
    where d.relation not in (select l.relation from "bemi".left_out() as l)
  loop
    insert into "bemi".tracked_tables as t (relation, root, schema, name, former_replica_identity, capture, ignored, masked, is_strict, is_polled)
    select c.oid, case when c.relispartition or c.relkind = 'p' then v_root else c.oid::regclass end,
      n.nspname, c.relname, c.relreplident, coalesce(v_capture, (select s.capture from "bemi".settings s)),
      coalesce(v_ignored, '{}'), coalesce(v_masked, '{}'), coalesce((a_options ->> 'strict')::boolean, false),
      coalesce((a_options ->> 'polled')::boolean, false)
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.oid = v_relation
    on conflict (relation) do update set
      root = excluded.root,
      left_wal_at = case when t.capture = 'wal' and v_capture = 'trigger' then clock_timestamp() else t.left_wal_at end,
      capture = coalesce(v_capture, t.capture),
      ignored = coalesce(v_ignored, t.ignored),
      masked = coalesce(v_masked, t.masked),
      is_strict = coalesce((a_options ->> 'strict')::boolean, t.is_strict),
      is_polled = coalesce((a_options ->> 'polled')::boolean, t.is_polled);
    update "bemi".tracked_tables t
    set masked_numbers = coalesce((select array_agg(a.attnum) from pg_attribute a
      where a.attrelid = t.relation and a.attname = any (t.masked) and a.attnum > 0), '{}')
    where t.relation = v_relation and v_masked is not null;
    perform set_config('bemi.reconciling', 'on', true);
    perform "bemi".attach(v_relation);
    perform "bemi".note_version(v_relation);
    perform set_config('bemi.reconciling', '', true);
  end loop;
  perform "bemi".attach_others(v_root);
end
$$;

-- It stays so though all tables are tracked, with the partitions and children that it has and gets, until track() names it.
create function "bemi".untrack(a_relation regclass) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  v_root regclass := coalesce(pg_partition_root(a_relation), a_relation);
  v_relation regclass;
begin
  if not (select pg_has_role(session_user, relowner, 'usage') from pg_class where oid = a_relation) then
    raise insufficient_privilege using
      message = format('Cannot untrack %s, as %I does not own it', a_relation, session_user),
      hint = 'Run this as the owner of the table.';
  end if;
  perform set_config('bemi.reconciling', 'on', true);
  for v_relation in select "bemi".with_descendants(v_root) loop
    perform "bemi".detach(v_relation);
    delete from "bemi".baselines where relation = v_relation;
    delete from "bemi".tracked_tables where relation = v_relation;
    insert into "bemi".untracked (relation, root) values (v_relation, v_root) on conflict do nothing;
  end loop;
  perform set_config('bemi.reconciling', '', true);
  perform "bemi".attach_others(v_root);
end
$$;
` },
  { version: 4, name: "ddl", sql: `-- Keeping up with DDL: event triggers that follow what a command can have touched, and never fail it.

-- The tables whose triggers or facts may have to change when relations or types did: the relations themselves, what has
-- columns of those types or of the relations' row types, and what inherits from any of them, or they from it.
create function "bemi".touched_by(a_relations oid[], a_types oid[] default '{}') returns oid[]
language sql stable set search_path = pg_catalog, pg_temp
as $$
  with recursive touched (class, id) as (
    (select 'pg_class'::regclass, unnest(a_relations) union all select 'pg_type'::regclass, unnest(a_types))
    union
    select n.class, n.id from touched t, lateral (
      select 'pg_type'::regclass as class, c.reltype as id from pg_class c where t.class = 'pg_class'::regclass and c.oid = t.id and c.reltype <> 0
      union all
      select d.classid::regclass, d.objid from pg_depend d
      where t.class = 'pg_type'::regclass and d.refclassid = t.class and d.refobjid = t.id
        and d.classid in ('pg_class'::regclass, 'pg_type'::regclass)
      union all
      select t.class, i.inhparent from pg_inherits i where t.class = 'pg_class'::regclass and i.inhrelid = t.id
      union all
      select t.class, i.inhrelid from pg_inherits i where t.class = 'pg_class'::regclass and i.inhparent = t.id
    ) as n
  )
  select coalesce(array_agg(id), '{}') from touched where class = 'pg_class'::regclass
$$;

-- The tables that are captured by row, or not, for something that is no longer so after a change of these: what they
-- can be written through has changed, or what could be written through them. See needs_row_level().
create function "bemi".of_other_level(a_relations oid[]) returns setof regclass
language sql stable set search_path = pg_catalog, pg_temp
as $$
  with recursive above (relation) as (
    select unnest(a_relations)
    union
    select n.relation from above a, lateral (
      select c.confrelid as relation from pg_constraint c where c.conrelid = a.relation and c.contype = 'f'
      union all
      select i.inhparent from pg_inherits i where i.inhrelid = a.relation
      union all
      select i.inhrelid from pg_inherits i where i.inhparent = a.relation
    ) as n
  ), candidates as materialized (
    select t.relation, t.row_level, t.capture from "bemi".tracked_tables t
    where t.row_level or t.relation in (select a.relation from above a)
  )
  select c.relation from candidates c where c.row_level <> "bemi".needs_row_level(c.relation, c.capture)
$$;

-- Brings the triggers in line with today's tables: new partitions and children, tables that appeared while all are
-- tracked, triggers that were dropped, tables that came to need row-level capture. Looks at what a change of these
-- relations and types can have touched, and at tables that are not tracked yet; at everything if they are NULL. Returns
-- what it changed.
create function "bemi".follow(a_relations oid[], a_types oid[]) returns setof regclass
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '2s'
as $$
declare
  v_relation regclass;
  v_touched oid[] := case when a_relations is not null then "bemi".touched_by(a_relations, a_types) end;
  v_is_noted boolean := a_relations is not null or not (select event_trigger from "bemi".settings);
begin
  perform set_config('bemi.reconciling', 'on', true);
  for v_relation in
    delete from "bemi".tracked_tables t
    where not exists (select from pg_class c where c.oid = t.relation)
    returning case when t.root <> t.relation then t.root end
  loop
    perform "bemi".add_break(v_relation, 'a partition was dropped');
  end loop;
  perform "bemi".forget_dropped();
  delete from "bemi".untracked u where not exists (select from pg_class c where c.oid = u.relation);
  -- What came to be part of it stays untracked when it is no longer part.
  insert into "bemi".untracked (relation, root) select l.relation, l.root from "bemi".left_out() as l on conflict do nothing;
  -- A detached partition is a table of its own.
  for v_relation in
    select distinct t.root from "bemi".tracked_tables t join pg_class c on c.oid = t.relation
    where t.root <> t.relation and pg_partition_root(t.relation) is distinct from t.root
  loop
    perform "bemi".add_break(v_relation, 'a partition was detached');
    update "bemi".tracked_tables t set root = t.relation, tracked_at = '-infinity', is_pending = true
    from pg_class c
    where c.oid = t.relation and t.root = v_relation and t.root <> t.relation and pg_partition_root(t.relation) is distinct from t.root;
  end loop;
  -- One that was attached is no longer.
  for v_relation in
    select distinct pg_partition_root(t.relation) from "bemi".tracked_tables t join pg_class c on c.oid = t.relation
    where t.root = t.relation and c.relispartition
  loop
    perform "bemi".add_break(v_relation, 'a partition was attached');
    update "bemi".tracked_tables t set root = v_relation, is_pending = true
    from pg_class c
    where c.oid = t.relation and t.root = t.relation and c.relispartition and pg_partition_root(t.relation) = v_relation;
  end loop;
  for v_relation in
    with recursive left_out as materialized (
      select l.relation::oid from "bemi".left_out() as l
    ), unknown as materialized (
      select c.oid from pg_class c
      -- All but the catalog's own: there are few.
      where c.relkind in ('r', 'p') and c.oid >= 16384
        and not exists (select from "bemi".tracked_tables known where known.relation = c.oid)
    ), missing (relation, depth) as (
      select a.relation::oid, 0 from "bemi".all_tables(array(select u.oid from unknown u)) as a (relation)
      where (select track_all from "bemi".settings)
      union
      select i.inhrelid, 1 from "bemi".tracked_tables t join pg_inherits i on i.inhparent = t.relation
      where not exists (select from "bemi".tracked_tables known where known.relation = i.inhrelid)
        and i.inhrelid not in (select l.relation from left_out l)
      union
      select i.inhrelid, m.depth + 1 from missing m join pg_inherits i on i.inhparent = m.relation
      where i.inhrelid not in (select l.relation from left_out l)
    )
    select m.relation from missing m
    where not exists (select from "bemi".tracked_tables known where known.relation = m.relation)
    group by m.relation
    -- Parents first, whose options their children take over.
    order by max(m.depth), m.relation
  loop
    insert into "bemi".tracked_tables (relation, root, schema, name, former_replica_identity, capture, ignored, masked, is_strict, is_polled, is_pending)
    select c.oid, case when c.relispartition then pg_partition_root(c.oid) else c.oid::regclass end,
      n.nspname, c.relname, c.relreplident, case when c.relispartition then parent.capture
        else "bemi".possible_capture(c.oid, coalesce(parent.capture, (select s.capture from "bemi".settings s))) end,
      coalesce(parent.ignored, '{}'), coalesce(parent.masked, '{}'), coalesce(parent.is_strict, false),
      coalesce(parent.is_polled, false), true
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    left join pg_inherits i on i.inhrelid = c.oid
    left join "bemi".tracked_tables parent on parent.relation = i.inhparent
    where c.oid = v_relation
    on conflict do nothing;
    delete from "bemi".untracked where relation = v_relation;
    perform "bemi".add_break(t.root, 'a partition was attached with its rows')
    from "bemi".tracked_tables t where t.relation = v_relation and t.root <> v_relation and not "bemi".is_blank(v_relation);
    update "bemi".tracked_tables t
    set masked_numbers = coalesce((select array_agg(a.attnum) from pg_attribute a
      where a.attrelid = t.relation and a.attname = any (t.masked) and a.attnum > 0), '{}')
    where t.relation = v_relation and t.masked <> '{}';
  end loop;
  for v_relation in
    select t.relation from "bemi".tracked_tables t
    where v_touched is null or t.is_pending or t.relation = any (v_touched)
      or t.relation in (select o.relation from "bemi".of_other_level(v_touched) as o (relation))
    order by t.relation = t.root desc, t.relation
  loop
    -- One table that cannot be tracked must not keep the others from it.
    begin
      if "bemi".attach(v_relation) then
        -- With its version noted.
        return next v_relation;
        continue;
      end if;
    exception when object_not_in_prerequisite_state or feature_not_supported or insufficient_privilege
      or lock_not_available or deadlock_detected then
      update "bemi".tracked_tables set is_pending = true where relation = v_relation;
      raise warning 'bemi: % could not be tracked: %', v_relation, sqlerrm;
    end;
    if v_is_noted then
      perform "bemi".note_version(v_relation);
    end if;
  end loop;
  perform set_config('bemi.reconciling', '', true);
end
$$;

create function "bemi".reconcile() returns setof regclass
language sql security definer set search_path = pg_catalog, pg_temp
as $$
  select "bemi".follow(null, '{}')
$$;

-- Never fails the DDL that it watches: what it could not do is said as a warning, and reconcile() does it later.
create function "bemi".on_ddl() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  v_relations oid[];
  v_types oid[];
begin
  if current_setting('bemi.reconciling', true) = 'on' then
    return;
  end if;
  begin
    -- An application may make temporary tables all day.
    select array_agg(c.objid) filter (where c.classid = 'pg_class'::regclass)
        || array_agg(t.tgrelid) filter (where t.oid is not null) || array_agg(r.oid) filter (where r.oid is not null),
      array_agg(c.objid) filter (where c.classid = 'pg_type'::regclass) || array_agg(y.oid) filter (where y.oid is not null)
    into v_relations, v_types
    from pg_event_trigger_ddl_commands() as c
      left join pg_trigger t on c.classid = 'pg_trigger'::regclass and t.oid = c.objid
      -- The name of a schema is part of its tables' names, and of those of its types.
      left join pg_class r on c.classid = 'pg_namespace'::regclass and r.relnamespace = c.objid
      left join pg_type y on c.classid = 'pg_namespace'::regclass and y.typnamespace = c.objid
    where c.schema_name is distinct from 'pg_temp';
    if v_relations is null and v_types is null then
      return;
    end if;
    perform "bemi".follow(coalesce(v_relations, '{}'), coalesce(v_types, '{}'));
  exception when others then
    raise warning 'bemi: tracking could not follow this command (SQLSTATE %)', sqlstate
      using hint = 'Run: select "bemi".reconcile()';
  end;
end
$$;

-- The same after a DROP, whose objects ddl_command_end says nothing of; what ALTER drops is followed at its end.
create function "bemi".on_drop() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  v_relations oid[];
begin
  if tg_tag not like 'DROP %' or current_setting('bemi.reconciling', true) = 'on' then
    return;
  end if;
  begin
    select array_agg(distinct case when d.classid = 'pg_class'::regclass then d.objid
      else to_regclass(format('%I.%I', d.address_names[1], d.address_names[2]))::oid end)
    into v_relations
    from pg_event_trigger_dropped_objects() as d
    where not d.is_temporary and (d.object_type in ('trigger', 'table constraint')
      or d.object_type ~ '^(table|foreign table|composite type)( column)?$');
    if v_relations is null then
      return;
    end if;
    perform "bemi".follow(array_remove(v_relations, null), '{}');
  exception when others then
    raise warning 'bemi: tracking could not follow this command (SQLSTATE %)', sqlstate
      using hint = 'Run: select "bemi".reconcile()';
  end;
end
$$;

-- What a column's values are computed from anew leaves no trace in the catalog where its type stays what it was.
create function "bemi".on_rewrite() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  v_relation regclass := pg_event_trigger_table_rewrite_oid();
  v_root regclass := coalesce(pg_partition_root(v_relation), v_relation);
begin
  -- For a column's type: AT_REWRITE_COLUMN_REWRITE in PostgreSQL's event_trigger.h. Another type is noticed by itself.
  if pg_event_trigger_table_rewrite_reason() & 4 <> 0
    and exists (select from "bemi".tracked_tables where relation = v_relation) and not "bemi".is_blank(v_relation)
    and not exists (select from "bemi".tables t join pg_attribute a on a.attrelid = t.relation, lateral (
        select c.type from "bemi".table_columns c
        where c.table_id = t.id and c.number = a.attnum order by c.named_at desc limit 1) as known
      where t.relation = v_root and known.type <> format_type(a.atttypid, a.atttypmod))
  then
    perform "bemi".add_break(v_root, 'a column''s values were computed anew');
  end if;
exception when others then
  raise warning 'bemi: tracking could not follow this command (SQLSTATE %)', sqlstate;
end
$$;

-- Casts to json of types of one's own run wherever a row becomes JSON: in trigger capture with the rights of the log's
-- owner, often a superuser's. So who wrote one has to be as trusted.
create function "bemi".foreign_casts() returns table (cast_id oid, source regtype, written_by name)
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select c.oid, c.castsource::regtype, r.rolname
  from pg_cast c join pg_proc p on p.oid = c.castfunc join pg_roles r on r.oid = p.proowner
  where c.castsource >= 16384 and c.casttarget = 'json'::regtype and not r.rolsuper
    and r.oid <> (select relowner from pg_class where oid = '"bemi".changes'::regclass)
$$;

-- The one command that is refused: to look for such casts at each write would leave a moment in between.
create function "bemi".refuse_foreign_cast() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  v_cast record;
begin
  select f.source, f.written_by into v_cast
  from "bemi".foreign_casts() f join pg_event_trigger_ddl_commands() d on d.objid = f.cast_id and d.classid = 'pg_cast'::regclass;
  if found then
    raise insufficient_privilege using
      message = format('A cast of %s to json by %I is refused: tracking would run it with the rights of the log''s owner', v_cast.source, v_cast.written_by),
      hint = 'Let a superuser own the function first: alter function ... owner to ...';
  end if;
end
$$;

-- Follows DDL by itself from now on, where this role may create an event trigger. Returns whether it is so.
create function "bemi".follow_ddl() returns boolean
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  v_trigger record;
  v_name name;
  v_follows boolean := true;
begin
  begin
    for v_trigger in
      select * from (values
        ('', 'ddl_command_end', '"bemi".on_ddl()'::regprocedure, array['CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'ALTER TABLE',
          'ALTER TYPE', 'CREATE TRIGGER', 'CREATE FOREIGN TABLE', 'CREATE SCHEMA', 'ALTER SCHEMA']),
        ('_drop', 'sql_drop', '"bemi".on_drop()'::regprocedure, null),
        ('_rewrite', 'table_rewrite', '"bemi".on_rewrite()'::regprocedure, null),
        ('_cast', 'ddl_command_end', '"bemi".refuse_foreign_cast()'::regprocedure, array['CREATE CAST'])
      ) as t (suffix, event, function, tags)
    loop
      select evtname into v_name from pg_event_trigger where evtfoid = v_trigger.function;
      if not found then
        v_name := 'bemi_reconcile_' || '"bemi".changes'::regclass::oid || v_trigger.suffix;
        execute format('create event trigger %I on %s %s execute function %s', v_name, v_trigger.event,
          (select 'when tag in (' || string_agg(quote_literal(tag), ', ') || ')' from unnest(v_trigger.tags) as tag), v_trigger.function);
      end if;
      -- ALWAYS: session_replication_role = replica must not switch it off.
      execute format('alter event trigger %I enable always', v_name);
    end loop;
  exception when insufficient_privilege then
    v_follows := false;
    raise notice 'bemi: this role may not create event triggers: run reconcile() after changes of the schema';
  end;
  update "bemi".settings set event_trigger = v_follows;
  if "bemi".follows_ddl() <> v_follows then
    execute 'create or replace function "bemi".follows_ddl() returns boolean language sql stable return ' || v_follows;
  end if;
  return v_follows;
end
$$;

select "bemi".follow_ddl();
` },
  { version: 5, name: "trigger_capture", sql: `-- Trigger capture: the triggers of a tracked table write the log themselves, in the transaction of the change.
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
-- What is truncated together is kept in a transaction-local setting, as \`before:oid,oid,\`.
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
-- \`root oid:operation:half-done move;...\`, the client's text once, for copying it for each row would be quadratic, and
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
    '(^|;)' || coalesce(pg_partition_root(tg_relid), tg_relid)::oid || ':' || tg_op || ':[0-9]*;', E'\\\\1'), true);
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
    perform set_config('bemi.statements', regexp_replace(v_statements, '(^|;)(' || v_root || ':[A-Z]+:)[0-9]*;', E'\\\\1\\\\2;'), true);
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
    perform set_config('bemi.statements', regexp_replace(v_statements, '(^|;)(' || v_root || ':[A-Z]+:)[0-9]*;', E'\\\\1\\\\2' || v_index || ';'), true);
  end if;
  return null;
end
$$;
` },
  { version: 6, name: "wal_capture", sql: `-- WAL capture: the application's write puts its context into the Write-Ahead Log, ahead of the rows that PostgreSQL
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
` },
  { version: 7, name: "worker", sql: `-- What the worker remembers: checkpoints, gaps, and changes that the log refused.

-- Up to where a source is in the log, written with the rows: the only memory of the worker.
create table "bemi".checkpoints (
  source_id integer primary key references "bemi".sources,
  slot text not null,
  -- The last transaction that is in the log: what is not above it is there already.
  commit_lsn pg_lsn not null default '0/0',
  -- Everything before it is in the log, or held nothing of ours. The slot never advances past it.
  end_lsn pg_lsn not null default '0/0',
  -- The publication that was read: another of its name does not hold what was changed before it was made.
  publication bigint,
  -- How long the worker's last heartbeat took through the WAL, in milliseconds, and when it came back.
  heartbeat_ms integer,
  heartbeat_at timestamptz,
  updated_at timestamptz not null default clock_timestamp()
);

-- Where WAL was lost, so that the log is silent about a stretch of time: from where reading ended to where it began
-- again. After a failover or a restore that is another source, whose LSNs are not comparable.
create table "bemi".gaps (
  id integer generated always as identity primary key,
  source_id integer not null references "bemi".sources,
  from_lsn pg_lsn not null,
  to_source_id integer not null references "bemi".sources,
  to_lsn pg_lsn not null,
  reason text not null,
  -- The last checkpoint before it.
  from_time timestamptz,
  detected_at timestamptz not null default clock_timestamp(),
  -- When the tracked tables were compared with the log, and what differed was put into it.
  reconciled_at timestamptz
);

-- The checkpoint that a source goes on from: its own, else that of the same database before a failover, or, where the
-- log is in the database itself and came here with it, before a restore.
create function "bemi".find_checkpoint(a_system text, a_timeline integer, a_database text,
  out source_id integer, out commit_lsn pg_lsn, out end_lsn pg_lsn, out publication bigint, out slot text,
  out updated_at timestamptz, out timeline integer, out is_own boolean, out is_same_system boolean)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  select c.source_id, c.commit_lsn, c.end_lsn, c.publication, c.slot, c.updated_at, s.timeline,
    f.is_same_system and s.timeline = a_timeline, f.is_same_system
  from "bemi".checkpoints c join "bemi".sources s on s.id = c.source_id,
    lateral (select s.system_identifier = a_system as is_same_system) as f
  where s.capture = 'wal' and s.database = a_database
    and (f.is_same_system or a_database = current_database() and a_system = (select system_identifier from "bemi".this_cluster()))
  order by f.is_same_system and s.timeline = a_timeline desc, s.incarnation desc, c.updated_at desc
  limit 1
$$;

-- Where reading begins, agreed on by all workers: makes the checkpoint of a source where it has none, and records the
-- gap where the slot, or the publication, does not go back to where reading ended. What a worker knows of the source:
-- a_confirmed, where its slot begins; a_flushed, where its WAL ends; a_fork, where its timeline left the former one.
create function "bemi".open_checkpoint(a_system text, a_timeline integer, a_database text, a_slot text, a_publication bigint,
  a_confirmed pg_lsn, a_flushed pg_lsn, a_fork pg_lsn, a_is_reset boolean, a_reason text,
  out source_id integer, out incarnation integer, out gap_from pg_lsn, out gap_to pg_lsn, out gap_reason text)
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '3s'
as $$
declare
  v_known record;
  -- Up to where the log has what this source has had.
  v_read pg_lsn;
  v_commit pg_lsn := '0/0';
begin
  lock table "bemi".gaps in share row exclusive mode;
  select * into v_known from "bemi".find_checkpoint(a_system, a_timeline, a_database);
  source_id := "bemi".register_source(a_system, a_timeline, a_database, 'wal');
  if a_is_reset then
    insert into "bemi".sources (system_identifier, timeline, database, capture, incarnation)
    select a_system, a_timeline, a_database, 'wal', s.incarnation + 1 from "bemi".sources s where s.id = source_id
    returning id into source_id;
  end if;
  select s.incarnation into incarnation from "bemi".sources s where s.id = source_id;

  if v_known.source_id is null then
    v_read := a_confirmed;
  elsif v_known.source_id = source_id then
    v_read := v_known.end_lsn;
    v_commit := v_known.commit_lsn;
    if v_known.publication <> a_publication then
      gap_reason := 'the publication was made anew';
      gap_to := a_flushed;
    end if;
  elsif v_known.is_same_system and a_fork is not null and not a_is_reset then
    -- A promoted server has the history of the former one up to the fork.
    v_read := least(v_known.end_lsn, a_fork);
    v_commit := least(v_known.commit_lsn, a_fork);
    if v_known.commit_lsn >= a_fork then
      insert into "bemi".gaps (source_id, from_lsn, to_source_id, to_lsn, reason, from_time)
      values (v_known.source_id, a_fork, v_known.source_id, v_known.end_lsn,
        'the log holds what the promoted server had not received', v_known.updated_at);
      gap_from := a_fork;
    end if;
  else
    gap_reason := coalesce(a_reason, case when v_known.is_same_system then 'another timeline: after a failover or a restore'
      else 'another server: after a restore' end);
    gap_to := a_confirmed;
  end if;
  if gap_reason is null and a_confirmed > v_read then
    gap_reason := coalesce(a_reason, 'the slot was past the checkpoint');
    gap_to := a_confirmed;
  end if;
  if gap_reason is not null then
    gap_from := coalesce(v_read, v_known.end_lsn);
    insert into "bemi".gaps (source_id, from_lsn, to_source_id, to_lsn, reason, from_time)
    values (v_known.source_id, gap_from, source_id, gap_to, gap_reason, v_known.updated_at);
  elsif gap_from is not null then
    gap_to := v_known.end_lsn;
    gap_reason := 'the log holds what the promoted server had not received';
  end if;
  -- Nothing to say: the row, which another worker may be writing, is left alone.
  if v_known.source_id = source_id and v_known.slot = a_slot and v_known.publication = a_publication and gap_reason is null then
    return;
  end if;
  insert into "bemi".checkpoints as c (source_id, slot, commit_lsn, end_lsn, publication)
  values (open_checkpoint.source_id, a_slot, v_commit, greatest(v_read, a_confirmed), a_publication)
  on conflict on constraint checkpoints_pkey do update
  set end_lsn = greatest(c.end_lsn, excluded.end_lsn), publication = excluded.publication, slot = excluded.slot;
end
$$;

-- Changes that the log refused, as JSON objects of its columns, with what PostgreSQL said. Text, since jsonb may be
-- what refused them.
create table "bemi".set_aside (
  id uuid primary key,
  change text not null,
  sqlstate text not null,
  set_aside_at timestamptz not null default clock_timestamp()
);

-- Writes one change, given as a JSON object of the log's columns, or sets it aside. Returns the SQLSTATE if it did that.
-- Columns that the worker could not read as their type hold what PostgreSQL printed of them: it is only written so when
-- somebody asks for it, with their names in the context. a_otherwise is the change with less of a context, for where that
-- is what is refused.
create function "bemi".write_or_set_aside(
  a_id uuid, a_change text, a_as_text boolean default false, a_otherwise text default null
) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  v_change jsonb;
begin
  v_change := a_change::jsonb;
  if v_change ? 'unreadable' then
    if not a_as_text then
      raise invalid_character_value_for_cast;
    end if;
    v_change := v_change || jsonb_build_object('context', v_change -> 'context' || jsonb_build_object(
      'db', coalesce(v_change #> '{context,db}', '{}') || jsonb_build_object('unreadable', v_change -> 'unreadable')));
  end if;
  insert into "bemi".changes
  select (jsonb_populate_record(null::"bemi".changes, jsonb_build_object('created_at', clock_timestamp()) || v_change)).*;
  return null;
exception when data_exception or integrity_constraint_violation or program_limit_exceeded or feature_not_supported then
  if a_otherwise is not null then
    begin
      insert into "bemi".changes
      select (jsonb_populate_record(null::"bemi".changes,
        jsonb_build_object('created_at', clock_timestamp()) || a_otherwise::jsonb - 'unreadable')).*
      where not a_otherwise::jsonb ? 'unreadable';
      if found then
        return null;
      end if;
    exception when data_exception or integrity_constraint_violation or program_limit_exceeded or feature_not_supported then
      null;
    end;
  end if;
  insert into "bemi".set_aside (id, change, sqlstate) values (a_id, a_change, sqlstate)
  on conflict do nothing;
  return sqlstate;
end
$$;

-- Tries again to put into the log what was set aside, what was unreadable as its text; returns how many changes went in.
create function "bemi".retry_set_aside() returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  v_row "bemi".set_aside;
  v_count bigint := 0;
begin
  for v_row in delete from "bemi".set_aside returning * loop
    if "bemi".write_or_set_aside(v_row.id, v_row.change, true) is null then
      v_count := v_count + 1;
    end if;
  end loop;
  return v_count;
end
$$;
` },
  { version: 8, name: "baseline", sql: `-- Baseline: the rows that are there when a table comes to be tracked, as SNAPSHOT changes, while the application works.
-- A chunk locks its rows FOR SHARE: who wrote one before has committed, and who writes one later waits for the chunk's
-- commit. So a SNAPSHOT stands where it belongs in the history of its key, in the log as in the WAL.

create table "bemi".baselines (
  relation regclass primary key,
  -- Of the last row that was written; NULL before the first.
  last_key text[],
  row_count bigint not null default 0,
  -- Rows that jsonb refuses.
  skipped_count bigint not null default 0,
  started_at timestamptz not null default clock_timestamp(),
  -- The transaction that put the last rows into the WAL: the log has them as of its commit.
  read_by xid8,
  finished_at timestamptz
);

-- A row's image, or NULL where jsonb refuses it.
create function "bemi".image_of(a_row anyelement) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  return to_jsonb(a_row);
exception when data_exception or program_limit_exceeded then
  return null;
end
$$;

-- Puts images into the WAL, for the worker: a context message of the operation SNAPSHOT, then a message for each row: a 2,
-- and a JSON array of the relation, the secret, the key and the image, each as text.
create function "bemi".emit_snapshots(a_relation oid, a_keys text[], a_images jsonb[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  v_secret text := (select secret from "bemi".seal);
begin
  perform "bemi".emit_message(a_relation, a_relation, 'SNAPSHOT', null, current_setting('bemi.context', true), null, null, v_secret);
  perform pg_logical_emit_message(true, '_bemi', convert_to('2' || json_build_array(a_relation, v_secret,
    "bemi".key_of(r.image, a_keys), r.image::text)::text, "bemi".message_encoding()))
  from unnest(a_images) as r (image);
end
$$;

-- Whoever may not see each row would take those that a policy hides for absent. And with the rights of the log's owner no
-- code of a table's owner may run: what makes a literal of a type asks the checks of domains within it.
create function "bemi".check_readable(a_relation regclass) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  if row_security_active(a_relation) then
    raise insufficient_privilege using message = format('Row level security hides rows of %s from %I', a_relation, current_user),
      hint = format('Let the log''s owner see all of them: alter table %s no force row level security, or alter role %I bypassrls.',
        a_relation, current_user);
  end if;
  if exists (
    with recursive parts (oid, is_within) as (
      select a.atttypid, false from pg_attribute a where a.attrelid = a_relation and a.attname = any ("bemi".key_columns(a_relation))
      union
      select d.oid, p.is_within or y.typtype <> 'd'
      from parts p join pg_type y on y.oid = p.oid, lateral (
        select y.typbasetype as oid where y.typtype = 'd'
        union all select y.typelem where y.typelem <> 0
        union all select r.rngsubtype from pg_range r where y.oid in (r.rngtypid, r.rngmultitypid)
        union all select a.atttypid from pg_attribute a where a.attrelid = y.typrelid and y.typtype = 'c' and a.attnum > 0 and not a.attisdropped
      ) as d
    )
    select from parts p join pg_type y on y.oid = p.oid where p.is_within and y.typtype = 'd' and y.oid >= 16384)
  then
    raise feature_not_supported using message = format('A type of the key of %s has a domain within it', a_relation),
      hint = 'Give the key a type without one: the checks of a domain would run with the rights of the log''s owner.';
  end if;
end
$$;

-- The next rows of a table with a key, in its order: after a key, and up to where there are at most so many. NULL as
-- the boundary if there are not even as many.
create function "bemi".next_chunk(a_relation regclass, a_after text[], a_limit integer, out condition text, out boundary text[])
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  v_keys text[] := "bemi".key_columns(a_relation);
  v_columns text := "bemi".key_list(v_keys);
begin
  condition := case when a_after is null then 'true'
    else format('(%s) > (%s)', v_columns, "bemi".key_literals(a_relation, v_keys, a_after)) end;
  -- concat() does without casts, which anybody may have made for a type of theirs.
  execute format('select array[%s] from %s as bemi_row where %s order by %s offset %s limit 1',
    (select string_agg(format('concat(bemi_row.%I)', k.name), ', ' order by k.n) from unnest(v_keys) with ordinality as k (name, n)),
    "bemi".own_rows(a_relation), condition, v_columns, greatest(a_limit, 1) - 1) into boundary;
  if boundary is not null then
    condition := format('%s and (%s) <= (%s)', condition, v_columns, "bemi".key_literals(a_relation, v_keys, boundary));
  end if;
end
$$;

create function "bemi".key_list(a_keys text[]) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select string_agg(format('bemi_row.%I', k.name), ', ' order by k.n) from unnest(a_keys) with ordinality as k (name, n)
$$;

-- A table without those that inherit from it, but with its partitions.
create function "bemi".own_rows(a_relation regclass) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select case relkind when 'p' then '' else 'only ' end || a_relation from pg_class where oid = a_relation
$$;

-- Records the next rows of a tracked table, at most so many, in the order of its key: returns how many, and NULL once
-- there are none left. A table without a key has no order to go by, and is recorded as a whole.
create function "bemi".baseline(a_relation regclass, a_limit integer) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp
  set timezone = 'UTC' set datestyle = 'ISO, MDY' set intervalstyle = 'postgres' set bytea_output = 'hex'
  set extra_float_digits = 1 set quote_all_identifiers = off set row_security = off
as $$
declare
  v_tracked "bemi".tracked_tables := (select t from "bemi".tracked_tables t where relation = a_relation and root = a_relation);
  v_baseline "bemi".baselines;
  v_keys text[] := "bemi".key_columns(a_relation);
  v_from text := 'from ' || "bemi".own_rows(a_relation) || ' as bemi_row';
  v_where text := 'true';
  v_boundary text[];
  v_image text := 'to_jsonb(bemi_row.*)';
  v_hidden text[];
  v_images jsonb[];
  v_frame "bemi".frame;
  v_skipped bigint;
begin
  if v_tracked is null then
    raise wrong_object_type using message = format('There is no baseline of %s, as it is not tracked', a_relation),
      hint = 'Track it first; a partition goes with its root.';
  end if;
  if not (select pg_has_role(session_user, relowner, 'usage') from pg_class where oid = a_relation) then
    raise insufficient_privilege using message = format('%I does not own %s', session_user, a_relation),
      hint = 'Run this as the owner of the table.';
  end if;
  perform "bemi".check_readable(a_relation);
  insert into "bemi".baselines (relation) values (a_relation) on conflict do nothing;
  select * into v_baseline from "bemi".baselines where relation = a_relation for update;
  if v_baseline.finished_at is not null then
    if not exists (select from "bemi".breaks_of(a_relation) as b where b.broken_at > v_baseline.started_at and b.broken_at < 'infinity') then
      return null;
    end if;
    -- What came after it is not all in the log: lost WAL, a change that was set aside, months past their retention.
    update "bemi".baselines set started_at = clock_timestamp(), read_by = null, finished_at = null, last_key = null,
      row_count = 0, skipped_count = 0
    where relation = a_relation returning * into v_baseline;
  elsif v_baseline.read_by is not null then
    update "bemi".baselines set finished_at = clock_timestamp() where relation = a_relation and read_by <> pg_current_xact_id();
    return null;
  end if;

  if v_keys <> '{}' then
    select c.condition, c.boundary into v_where, v_boundary from "bemi".next_chunk(a_relation, v_baseline.last_key, a_limit) as c;
  end if;
  for i in 1..2 loop
    begin
      execute format('select coalesce(array_agg(bemi_locked.bemi_image), ''{}'') from (select %s as bemi_image %s where %s %s for share) as bemi_locked',
        v_image, v_from, v_where, coalesce('order by ' || "bemi".key_list(v_keys), '')) into v_images;
      exit;
    exception when data_exception or program_limit_exceeded then
      -- One row by one, since some row is no jsonb.
      v_image := '"bemi".image_of(bemi_row.*)';
    end;
  end loop;
  v_skipped := cardinality(v_images);
  v_images := array(select image from unnest(v_images) with ordinality as u (image, n) where image is not null order by n);
  v_skipped := v_skipped - cardinality(v_images);
  if v_skipped > 0 then
    raise warning 'bemi: % rows of % are not in its baseline, as jsonb cannot hold them', v_skipped, a_relation;
  end if;

  -- Before PostgreSQL 18 decoding leaves generated columns out: a baseline that is decoded does so too.
  v_hidden := "bemi".masked_columns(a_relation, v_tracked.masked, v_tracked.masked_numbers)
    || case when v_tracked.capture = 'wal' and current_setting('server_version_num')::integer < 180000 then
      array(select attname::text from pg_attribute where attrelid = a_relation and attgenerated <> '' and not attisdropped)
      else '{}' end;
  if v_tracked.capture = 'wal' then
    perform "bemi".emit_snapshots(a_relation, v_keys, array(
      select image - v_hidden from unnest(v_images) with ordinality as u (image, n) order by n));
  else
    -- Opened now that the rows are locked: its LSN is past what anybody wrote of them before.
    v_frame := "bemi".open_frame(a_relation, null);
    insert into "bemi".changes (id, database, schema, "table", primary_key, operation, after,
      context, committed_at, queued_at, transaction_id, position, source_id, commit_lsn, transaction_index)
    select "bemi".change_id(v_frame.id_time), current_database(), v_frame.schema, v_frame.name,
      "bemi".key_of(image, v_keys), 'SNAPSHOT', image - v_hidden,
      v_frame.context, v_frame.written_at, v_frame.written_at, v_frame.transaction_id,
      (v_frame.lsn - '0/0'::pg_lsn)::bigint, v_frame.source_id, v_frame.lsn, nextval('"bemi".change_sequence')
    from unnest(v_images) as r (image);
  end if;
  update "bemi".baselines
  set last_key = coalesce(v_boundary, last_key), row_count = row_count + cardinality(v_images),
    skipped_count = skipped_count + v_skipped,
    read_by = case when v_boundary is null then pg_current_xact_id() end,
    -- What goes through the WAL is in the log as of its commit: the next call, which finds nothing, says that it is over.
    finished_at = case when v_boundary is null and v_tracked.capture <> 'wal' then clock_timestamp() end
  where relation = a_relation;
  return cardinality(v_images);
end
$$;

-- A type, of a domain what it is based on.
create function "bemi".plain_type(a_type oid, a_typmod integer) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  with recursive bases as (
    select a_type as type, a_typmod as typmod
    union all
    select y.typbasetype, y.typtypmod from bases b join pg_type y on y.oid = b.type where y.typtype = 'd'
  )
  select format_type(b.type, b.typmod) from bases b join pg_type y on y.oid = b.type where y.typtype <> 'd'
$$;

-- A key that was written as text, as literals of its columns' types: of a domain's base type, as a literal of the domain
-- would have its checks asked.
create function "bemi".key_literals(a_relation oid, a_columns text[], a_key text[]) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select string_agg(format('%L::%s', a_key[k.n], "bemi".plain_type(a.atttypid, a.atttypmod)), ', ' order by k.n)
  from unnest(a_columns) with ordinality as k (name, n) join pg_attribute a on a.attrelid = a_relation and a.attname = k.name
$$;
` },
  { version: 9, name: "history", sql: `-- Reading the log: what a table, a row, a column was called, and every change of one row.

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
` },
  { version: 10, name: "moments", sql: `-- What is known of a moment: which changes lie before it, and what the log cannot tell.

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
-- is not above \`covered\` was read, and is in this log where there is a checkpoint.
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
` },
  { version: 11, name: "images", sql: `-- The rows of a table, or one of them, as they were at a moment.

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
` },
  { version: 12, name: "as_of", sql: `-- Today's rows of what was: tables, or one row, as of a time or a transaction.

-- Says of the rows of a table at a moment what they do not: columns that came or went since, what a worker has yet to read.
create function "bemi".remark_as_of(a_relation regclass, a_moment "bemi".moment) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan
as $$
declare
  v_names text;
  v_last timestamptz;
  v_lag record;
begin
  select string_agg(format('%I %s', c.name, case when c.dropped_at > a_moment.at then 'was dropped' else 'was added' end), ', ' order by c.number) into v_names
  from "bemi".table_columns c join "bemi".tables t on t.id = c.table_id
  where t.relation = a_relation and (c.dropped_at > a_moment.at and c.named_at <= a_moment.at
    or c.dropped_at is null and c.named_at > a_moment.at
      and not exists (select from "bemi".table_columns f where f.table_id = c.table_id and f.number = c.number and f.named_at < c.named_at));
  if v_names is not null then
    raise notice 'bemi: columns of % since: %', a_relation, v_names;
  end if;
  if a_moment.epoch is null and (select capture from "bemi".tracked_tables where relation = a_relation) = 'wal' and not pg_is_in_recovery() then
    v_last := "bemi".last_from_wal();
    if a_moment.at > coalesce(v_last, '-infinity') then
      select * into v_lag from "bemi".wal_lag();
      if v_lag.bytes is null then
        raise warning 'bemi: nothing reads the WAL of this database into its log, for there is no slot: what was committed after % may be missing', coalesce(v_last::text, 'tracking began')
          using hint = 'Run bemi worker, and see bemi doctor.';
      elsif v_lag.bytes > (case when v_lag.is_active then 1048576 else 0 end) then
        raise warning 'bemi: the worker has % bytes of WAL yet to read: what was committed after % may be missing', v_lag.bytes,
          coalesce(v_last, (select tracked_at from "bemi".tracked_tables where relation = a_relation))
          using hint = 'Run bemi worker, or bemi-poll --once.';
      end if;
    end if;
  end if;
end
$$;

-- Whether a row is its image put into its type, and nothing besides: see rows_query().
create function "bemi".is_plain(a_relation oid) returns boolean
language sql stable
return not exists (select from pg_attribute a where a.attrelid = a_relation and a.attnum > 0 and not a.attisdropped
  and (a.attgenerated = 's' or a.atttypid in (select t.oid from pg_type t where t.typname = 'hstore')));

-- A row of today's type for each row as it was, as a query. Dropped columns are left out, added ones have the value that
-- they were added with, masked ones are NULL; a notice says so.
create function "bemi".rows_query(a_relation regclass, a_moment "bemi".moment, a_key text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  v_ground "bemi".ground := "bemi".ground_of(a_relation, a_moment, a_key);
  v_images text := case when a_key is null or v_ground.has_moves then "bemi".images_query(a_relation, a_moment, v_ground, a_key)
    else format('select image from "bemi".key_image(%L, %L, %L, %L) where image is not null', a_relation::oid, a_moment, v_ground, a_key) end;
  v_columns text;
begin
  perform "bemi".remark_as_of(a_relation, a_moment);
  if "bemi".is_plain(a_relation) then
    -- The row is made once: each of its columns would make it again, and a function in FROM a table of it.
    select string_agg(format('(bemi_made.bemi_row).%I', a.attname), ', ' order by a.attnum) into v_columns
    from pg_attribute a where a.attrelid = a_relation and a.attnum > 0 and not a.attisdropped;
    return format('select %s from (select jsonb_populate_record(null::%s, bemi_images.image) as bemi_row from (%s) as bemi_images offset 0) as bemi_made',
      v_columns, a_relation, v_images);
  end if;
  select string_agg(case
      -- Before PostgreSQL 18 decoding leaves generated columns out.
      when a.attgenerated = 's' then format('case when bemi_images.bemi_image ? %L then bemi_row.%I else (%s) end', a.attname, a.attname, pg_get_expr(d.adbin, d.adrelid))
      -- It is an object in jsonb, and jsonb_populate_record would hand the object's text to it.
      when t.typname = 'hstore' then format('(select %I.hstore(array_agg(e.key), array_agg(e.value)) from jsonb_each_text(nullif(bemi_images.bemi_image -> %L, ''null'')) as e)',
        n.nspname, a.attname)
      else format('bemi_row.%I', a.attname) end, ', ' order by a.attnum)
  into v_columns
  from pg_attribute a join pg_type t on t.oid = a.atttypid join pg_namespace n on n.oid = t.typnamespace
    left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
  where a.attrelid = a_relation and a.attnum > 0 and not a.attisdropped;
  -- A generated column's expression names the others as they are called, and one may be called image.
  return format('select %s from (select image as bemi_image from (%s) as i) as bemi_images, lateral jsonb_populate_record(null::%s, bemi_images.bemi_image) as bemi_row',
    v_columns, v_images, a_relation);
end
$$;

-- The table whose row type this is.
create function "bemi".table_of_row(a_row anyelement) returns regclass
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  v_relation regclass := (select typrelid from pg_type where oid = pg_typeof(a_row)::oid and typrelid <> 0);
begin
  if v_relation is null then
    raise wrong_object_type using message = format('%s is no table''s type', pg_typeof(a_row)), hint = 'Write null::todos, with the table''s name.';
  end if;
  return v_relation;
end
$$;

-- Tables of which one row is what its last change says: there was a baseline by then, the table has had one name and one
-- shape, its key is one, and all that was committed is in the log. Kept, since finding it out takes longer than the read.
create table "bemi".plain_reads (
  relation regclass primary key,
  schema text not null,
  name text not null,
  -- As long as the catalog agrees, for nothing may notice a rename, a column or a month that was dropped by hand.
  namespace oid not null,
  column_count smallint not null,
  oldest_month regclass not null,
  capture text not null,
  tracked_at timestamptz not null,
  known_from timestamptz not null
);

-- Of the table that the row tells of, since each of a thousand that come to be tracked must not look into all of them.
create function "bemi".end_plain_reads() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  v_row jsonb := coalesce(to_jsonb(old), '{}') || coalesce(jsonb_strip_nulls(to_jsonb(new)), '{}');
begin
  insert into "bemi".plain_read_ends (relation)
  select coalesce(v_row ->> 'root', v_row ->> 'relation',
    (select t.relation::text from "bemi".tables t where t.id = (v_row ->> 'table_id')::integer))::regclass;
  return null;
exception when others then
  insert into "bemi".plain_read_ends (relation) values (null);
  return null;
end
$$;

-- Runs when what ended them commits. One statement takes away the ends that it sees and looks at what they stood for: what
-- others have yet to commit comes with an end of its own. One at a time, and with a snapshot that is taken after the
-- last one's commit: an older one would bring back what that found to have ended.
create function "bemi".find_plain_reads() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('transaction_isolation') <> 'read committed' or not exists (select from "bemi".plain_read_ends)
    or not pg_try_advisory_xact_lock(hashtextextended('bemi.plain_reads', '"bemi".plain_reads'::regclass::oid::bigint))
  then
    return null;
  end if;
  with found as materialized (
    select t.relation, t.schema, t.name, c.relnamespace, c.relnatts,
      to_regclass('"bemi".changes_p' || to_char(t.tracked_at at time zone 'UTC', 'YYYYMM')) as oldest_month, t.capture, t.tracked_at, b.finished_at
    from "bemi".tracked_tables t join "bemi".tables i on i.relation = t.relation join "bemi".baselines b on b.relation = t.relation
      join pg_class c on c.oid = t.relation join pg_namespace n on n.oid = c.relnamespace
    where (t.relation in (select e.relation from "bemi".plain_read_ends e) or exists (select from "bemi".plain_read_ends e where e.relation is null))
      and t.relation = t.root and t.key_columns <> '{}' and c.relname = t.name and n.nspname = t.schema and "bemi".is_plain(c.oid)
      and not exists (select from "bemi".tracked_tables p where p.root = t.relation and p.relation <> t.relation)
      and b.skipped_count = 0 and b.started_at >= t.tracked_at and b.finished_at >= t.tracked_at
      and not exists (select from "bemi".breaks k where k.table_id = i.id and k.broken_at > b.started_at)
      -- Its one name, which no other table has had, and one shape.
      and (select count(*) = 1 and bool_and(o.table_id = i.id and o.schema = t.schema and o.name = t.name)
        from "bemi".table_names o where o.table_id = i.id or o.schema = t.schema and o.name = t.name)
      and (select max(greatest(o.named_at, o.dropped_at)) = min(o.named_at) from "bemi".table_columns o where o.table_id = i.id)
      -- One epoch, so that LSNs are an order.
      and (select min(e.epoch) = max(e.epoch) from "bemi".epochs e)
      -- See breaks_of().
      and not exists (select from "bemi".set_aside)
      and (t.capture = 'trigger' and t.left_wal_at is null or not exists (select from "bemi".gaps g where g.detected_at >= t.tracked_at))
  ), ended as (
    delete from "bemi".plain_read_ends
  ), gone as (
    delete from "bemi".plain_reads p
    where (p.relation in (select e.relation from "bemi".plain_read_ends e) or exists (select from "bemi".plain_read_ends e where e.relation is null))
      and not exists (select from found f where f.relation = p.relation)
  )
  insert into "bemi".plain_reads as p
  select f.* from found f where f.oldest_month is not null
  on conflict (relation) do update set (schema, name, namespace, column_count, oldest_month, capture, tracked_at, known_from)
    = row(excluded.schema, excluded.name, excluded.namespace, excluded.column_count, excluded.oldest_month, excluded.capture,
      excluded.tracked_at, excluded.known_from);
  return null;
exception when others then
  -- Whatever it is, reads are slower until the next time, and whoever commits here has no part in it.
  return null;
end
$$;

create constraint trigger found_at_commit after insert on "bemi".plain_read_ends deferrable initially deferred
  for each row execute function "bemi".find_plain_reads();
alter table "bemi".plain_read_ends enable always trigger found_at_commit;

do $$
declare
  v_relation regclass;
begin
  foreach v_relation in array array['"bemi".sources', '"bemi".tracked_tables', '"bemi".tables', '"bemi".table_names', '"bemi".table_columns',
    '"bemi".breaks', '"bemi".baselines', '"bemi".gaps', '"bemi".set_aside']::regclass[]
  loop
    execute format('create trigger ends_plain_reads after insert or update or delete on %s for each row execute function "bemi".end_plain_reads()', v_relation);
    execute format('create trigger ends_all_plain_reads after truncate on %s for each statement execute function "bemi".end_plain_reads()', v_relation);
    execute format('alter table %s enable always trigger ends_plain_reads', v_relation);
    execute format('alter table %s enable always trigger ends_all_plain_reads', v_relation);
  end loop;
end
$$;

-- What the last change of a row until a time says of it, where that is all there is to know; else is_known is false, and
-- images_as_of() has to tell. One query, whose plan is kept.
create type "bemi".last_image as (is_known boolean, image jsonb);

create function "bemi".last_image(a_relation oid, a_key text, a_time timestamptz) returns "bemi".last_image
language plpgsql stable set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan
as $$
declare
  v_last record;
begin
  select p.capture, l.image, l.is_moved, exists (select from "bemi".changes m
      where m."table" = p.name and m.schema = p.schema and m.committed_at between p.tracked_at and a_time
        and m.primary_key is null and m.before = '{}' and m.after = '{}')
    or exists (select from "bemi".changes m
      where m."table" = p.name and m.schema = p.schema and m.committed_at between p.tracked_at and a_time
        and hashtextextended(m.former_primary_key, 0) = hashtextextended(a_key, 0) and m.former_primary_key = a_key) as is_more
  into v_last
  from "bemi".plain_reads p
    join pg_class c on c.oid = p.relation and c.relname = p.name and c.relnamespace = p.namespace and c.relnatts = p.column_count
    left join lateral (
      select case when c.operation <> 'DELETE' then c.after end as image, bool_or(c.former_primary_key is not null) over () as is_moved
      from "bemi".changes c
      where c."table" = p.name and c.schema = p.schema and c.committed_at between p.tracked_at and a_time
        and hashtextextended(c.primary_key, 0) = hashtextextended(a_key, 0) and c.primary_key = a_key
      order by c.commit_lsn desc, c.transaction_index desc limit 1
    ) as l on true
  where p.relation = a_relation and p.known_from <= a_time
    and not exists (select from "bemi".plain_read_ends)
    and pg_partition_root(p.oldest_month) = '"bemi".changes'::regclass;
  if v_last.capture is null or v_last.is_more or v_last.is_moved
    -- Of a worker's lag there may be something to be said.
    or v_last.capture = 'wal' and coalesce("bemi".last_from_wal() < a_time, true)
  then
    return row(false, null)::"bemi".last_image;
  end if;
  return row(true, v_last.image)::"bemi".last_image;
end
$$;

-- The rows of a table, or the one with this key, as they were at a time: select * from as_of(null::todos, '2026-11-01 12:00').
-- The settings are those of images_as_of(), for all that is called from here.
create function "bemi".as_of(a_row anyelement, a_time timestamptz, a_key text default null) returns setof anyelement
language plpgsql stable set search_path = pg_catalog, pg_temp
  set timezone = 'UTC' set datestyle = 'ISO, MDY' set intervalstyle = 'postgres' set bytea_output = 'hex'
  set extra_float_digits = 1 set quote_all_identifiers = off
as $$
declare
  v_relation regclass := "bemi".table_of_row(a_row);
  v_last "bemi".last_image;
begin
  if a_key like '[%' and cardinality("bemi".key_columns(v_relation)) > 1 then
    a_key := "bemi".spelled_key(a_key);
  end if;
  if a_time > clock_timestamp() + interval '1 minute' then
    raise invalid_parameter_value using message = format('%s is yet to come', a_time),
      hint = 'Rows are known as they were up to now, by the server''s clock.';
  end if;
  if a_key is not null and a_row is null then
    v_last := "bemi".last_image(v_relation, a_key, a_time);
    if v_last.is_known then
      if v_last.image is not null then
        return next jsonb_populate_record(a_row, v_last.image);
      end if;
      return;
    end if;
  end if;
  return query execute "bemi".rows_query(v_relation, "bemi".moment_at(a_time), a_key);
end
$$;

-- The same just before or just after a transaction, which is named by the id of one of its changes.
create function "bemi".as_of_change(a_row anyelement, a_change uuid, a_edge text default 'after', a_key text default null) returns setof anyelement
language plpgsql stable set search_path = pg_catalog, pg_temp
  set timezone = 'UTC' set datestyle = 'ISO, MDY' set intervalstyle = 'postgres' set bytea_output = 'hex'
  set extra_float_digits = 1 set quote_all_identifiers = off
as $$
declare
  v_relation regclass := "bemi".table_of_row(a_row);
begin
  if a_key like '[%' and cardinality("bemi".key_columns(v_relation)) > 1 then
    a_key := "bemi".spelled_key(a_key);
  end if;
  return query execute "bemi".rows_query(v_relation, "bemi".moment_of(a_change, a_edge, v_relation, a_key), a_key);
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
` },
  { version: 13, name: "revert", sql: `-- Reverting: what the catalog says today of a table that the log tells of, and how images compare with rows.
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
` },
  { version: 14, name: "reconcile", sql: `-- Reconciliation: after a gap, what differs between the log's last image of a key and the live row becomes a change.
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
` },
];

/** What `bemi doctor` asks. Each gives rows of severity, name, object, problem and repair. */
export const questions: readonly string[] = [
  `-- What bemi doctor asks about the tracked tables: severity, name, object, problem, repair.
with missing as (
  select t.relation, w.name
  from "bemi".tracked_tables t
    join pg_class c on c.oid = t.relation,
    lateral "bemi".wanted_triggers(t.relation, t.capture, "bemi".needs_row_level(t.relation, t.capture)) as w
  where not exists (select from "bemi".own_triggers o where o.relation = t.relation and o.name = w.name)
), uncovered as (
  select d.relation, t.relation as parent
  from "bemi".tracked_tables t
    join pg_class c on c.oid = t.relation,
    lateral "bemi".with_descendants(t.relation) as d (relation)
  where not exists (select from "bemi".tracked_tables known where known.relation = d.relation)
    and d.relation not in (select l.relation from "bemi".left_out() as l)
    and not exists (select from pg_inherits i join "bemi".tracked_tables nearer on nearer.relation = i.inhparent
      where i.inhrelid = d.relation and nearer.relation <> t.relation)
)
select 'error' as severity, 'trigger-missing' as name, relation::text as object,
  format('the trigger %I is missing: changes of this table are not recorded as they should be', name) as problem,
  'select "bemi".reconcile();' as repair
from missing
union all
select 'error', 'trigger-disabled', o.relation::text,
  format('the trigger %I is %s', o.name, case o.enabled when 'D' then 'disabled: changes are not recorded'
    else 'not ENABLE ALWAYS: session_replication_role switches it off' end),
  'select "bemi".reconcile();'
from "bemi".own_triggers o join "bemi".tracked_tables t on t.relation = o.relation
where o.enabled <> 'A'
union all
select 'error', 'trigger-outdated', o.relation::text,
  format('the trigger %I does not fit the way in which this table has to be captured now', o.name),
  'select "bemi".reconcile();'
from "bemi".own_triggers o
  join "bemi".tracked_tables t on t.relation = o.relation
  join pg_class c on c.oid = t.relation
where not o.is_cloned and o.name not in (
  select w.name from "bemi".wanted_triggers(t.relation, t.capture, "bemi".needs_row_level(t.relation, t.capture)) as w
  where w.events is null or w.events = o.events)
union all
select 'error', 'partition-untracked', relation::text,
  format('belongs to %s, and is not tracked: a write straight to it is not recorded', parent),
  'select "bemi".reconcile();'
from uncovered
union all
select 'error', 'table-untracked', a.relation::text,
  'all tables are to be tracked, and this one is not',
  'select "bemi".reconcile();'
from "bemi".all_tables() as a (relation)
where (select track_all from "bemi".settings)
  and not exists (select from "bemi".tracked_tables known where known.relation = a.relation)
  and not exists (select from uncovered u where u.relation = a.relation)
union all
select 'warning', 'table-gone', format('%I.%I', t.schema, t.name),
  'is tracked, and no longer exists',
  'select "bemi".reconcile();'
from "bemi".tracked_tables t
where not exists (select from pg_class c where c.oid = t.relation)
union all
select 'error', 'replica-identity', c.oid::regclass::text,
  'REPLICA IDENTITY is not FULL: what a row was before is not in the Write-Ahead Log',
  'select "bemi".reconcile();'
from "bemi".tracked_tables t join pg_class c on c.oid = t.relation
where t.capture = 'wal' and c.relreplident <> 'f' and "bemi".wal_refusal(c.oid) is null
union all
select 'error', 'wal-impossible', c.oid::regclass::text,
  'cannot be captured from the Write-Ahead Log: ' || "bemi".wal_refusal(c.oid),
  format('select "bemi".track(%L, %L);', c.oid::regclass, '{"capture": "trigger"}')
from "bemi".tracked_tables t join pg_class c on c.oid = t.relation
where t.capture = 'wal' and "bemi".wal_refusal(c.oid) is not null
union all
select 'warning', 'mask-without-column', t.relation::text,
  format('the masked column %I is gone: if another took its place, mask that one', m.name),
  format('select "bemi".track(%L, %L);', t.relation, jsonb_build_object('mask', (
    select coalesce(jsonb_agg(kept), '[]') from unnest(t.masked) as kept
    where exists (select from pg_attribute a where a.attrelid = t.relation and a.attname = kept and not a.attisdropped))))
from "bemi".tracked_tables t join pg_class c on c.oid = t.relation, unnest(t.masked) as m (name)
where t.root = t.relation
  and not exists (select from pg_attribute a where a.attrelid = t.relation and not a.attisdropped
    and (a.attname = m.name
      or a.attnum = any (t.masked_numbers) and a.attname <> all (t.masked)))
union all
select 'warning', 'other-bemi', t.tgrelid::regclass::text,
  format('the trigger %I of another Bemi writes a message for each row besides', t.tgname),
  format('drop trigger %I on %s;', t.tgname, t.tgrelid::regclass)
from pg_trigger t join pg_proc p on p.oid = t.tgfoid
where p.proname like E'\\\\_bemi\\\\_%' and p.pronamespace <> '"bemi"'::regnamespace and not t.tgisinternal and t.tgparentid = 0
union all
select 'warning', 'other-bemi', e.evtname::text,
  'this event trigger of another Bemi gives new tables its triggers',
  format('drop event trigger %I;', e.evtname)
from pg_event_trigger e join pg_proc p on p.oid = e.evtfoid
where p.proname like E'\\\\_bemi\\\\_%' and p.pronamespace <> '"bemi"'::regnamespace
order by 1, 2, 3
`,
  `-- What bemi doctor asks about settings that switch things off unseen: severity, name, object, problem, repair.
with settings as (
  select s.setdatabase, s.setrole, split_part(entry, '=', 1) as name, substr(entry, position('=' in entry) + 1) as value,
    case when s.setrole = 0 then format('alter database %I', d.datname)
      else format('alter role %I%s', r.rolname, case when s.setdatabase = 0 then '' else format(' in database %I', d.datname) end)
    end as owner
  from pg_db_role_setting s
    left join pg_database d on d.oid = s.setdatabase
    left join pg_roles r on r.oid = s.setrole,
    unnest(s.setconfig) as entry
  where s.setdatabase = 0 or d.datname = current_database()
)
select 'error' as severity, 'event-trigger' as name, f.what as object,
  case when e.evtname is null then 'the event trigger is missing: nobody notices them'
    else format('the event trigger %I is %s', e.evtname, case e.evtenabled when 'D' then 'disabled: nobody notices them'
      else 'not ENABLE ALWAYS: session_replication_role switches it off' end) end as problem,
  'select "bemi".follow_ddl();' as repair
from "bemi".settings s
  cross join (values ('new tables and partitions', '"bemi".on_ddl()'::regprocedure), ('dropped tables and triggers', '"bemi".on_drop()'),
    ('columns computed anew', '"bemi".on_rewrite()')) as f (what, function)
  left join pg_event_trigger e on e.evtfoid = f.function
where s.event_trigger and e.evtenabled is distinct from 'A'
union all
select 'error', 'event-trigger', 'casts to json',
  'the event trigger that refuses those of other roles is missing or disabled: trigger capture would run them with the rights of the log''s owner',
  'select "bemi".follow_ddl();'
from "bemi".settings s left join pg_event_trigger e on e.evtfoid = '"bemi".refuse_foreign_cast()'::regprocedure
where s.event_trigger and e.evtenabled is distinct from 'A'
union all
select 'error', 'foreign-cast', f.source::text,
  format('the cast of this type to json was written by %I, and trigger capture runs it with the rights of the log''s owner', f.written_by),
  format('drop cast (%s as json);', f.source)
from "bemi".foreign_casts() f
union all
select 'warning', 'event-trigger', 'new tables and partitions',
  'no role that may create event triggers has installed Bemi: run bemi init after each change of the schema, or this once as a superuser',
  'select "bemi".follow_ddl();'
from "bemi".settings where not event_trigger
union all
select 'error', 'event-triggers-off', 'event_triggers', 'the setting event_triggers is off: nobody notices new tables and partitions',
  'alter system reset event_triggers; select pg_reload_conf();'
from pg_settings where name = 'event_triggers' and setting = 'off' and source in ('configuration file', 'command line')
union all
select case s.name when 'session_replication_role' then 'warning' else 'error' end, 'setting', s.owner,
  case
    when s.name = 'session_replication_role' then 'sets session_replication_role: the application''s own triggers and foreign keys do not fire'
    when s.name = 'event_triggers' then 'sets event_triggers: nobody notices new tables and partitions'
    when s.name = 'bemi.context' then 'sets bemi.context: every change that has no context of its own gets that one'
    else format('sets %s, which is for Bemi''s own functions', s.name) end,
  format('%s reset %s;', s.owner, s.name)
from settings s
where s.name = 'session_replication_role' and s.value <> 'origin'
  or s.name = 'event_triggers' and s.value in ('off', 'false', 'no', '0')
  or s.name in ('bemi.context', 'bemi.maintenance', 'bemi.reconciling', 'bemi.statement', 'bemi.statements')
order by 1, 2, 3
`,
  `-- What bemi doctor asks about publication, slot and worker: severity, name, object, problem, repair.
with tables as (
  select t.relation from "bemi".tracked_tables t join pg_class c on c.oid = t.relation where t.capture = 'wal'
), publication as (
  select p.*, to_jsonb(p) ->> 'pubgencols' as generated_columns from pg_publication p where p.pubname = "bemi".own_name()
), slots as (
  select n.name, s.plugin, s.database, s.active, s.wal_status, s.restart_lsn,
    case when pg_is_in_recovery() then null else pg_current_wal_lsn() - s.restart_lsn end as retained
  from (
    select "bemi".slot_name() as name
    where not exists (select from "bemi".checkpoints c join pg_replication_slots s on s.slot_name = c.slot)
    union
    select c.slot from "bemi".checkpoints c join pg_replication_slots s on s.slot_name = c.slot
    where s.database = current_database()
  ) as n left join pg_replication_slots s on s.slot_name = n.name
)
select 'error' as severity, 'wal-level' as name, 'wal_level' as object,
  format('is %s: tables are tracked from the Write-Ahead Log, and it cannot be decoded', current_setting('wal_level')) as problem,
  'alter system set wal_level = ''logical''; -- then restart PostgreSQL' as repair
where exists (select from tables) and current_setting('wal_level') <> 'logical'
union all
select 'error', 'publication-missing', "bemi".own_name(),
  'there is no such publication: nothing can be decoded',
  'select "bemi".reconcile();'
where exists (select from tables) and not exists (select from publication)
union all
select 'error', 'publication-options', p.pubname::text,
  'the publication leaves out some operations, or does not speak of partitions by their root',
  format('alter publication %I set (publish = ''insert, update, delete, truncate'', publish_via_partition_root = true%s);', p.pubname,
    case when p.generated_columns is null then '' else ', publish_generated_columns = stored' end)
from publication p
where not (p.pubinsert and p.pubupdate and p.pubdelete and p.pubtruncate and p.pubviaroot) or p.generated_columns <> 's'
union all
select 'error', 'publication-filter', r.prrelid::regclass::text,
  format('the publication %I has a row filter or a column list for it: what those leave out is not recorded', p.pubname),
  format('alter publication %I drop table only %s; alter publication %1$I add table only %2$s;', p.pubname, r.prrelid::regclass)
from publication p join pg_publication_rel r on r.prpubid = p.oid
where to_jsonb(r) ->> 'prqual' is not null or to_jsonb(r) ->> 'prattrs' is not null
union all
select 'error', 'not-published', t.relation::text,
  format('is not in the publication %I: its changes are not decoded', "bemi".own_name()),
  'select "bemi".reconcile();'
from tables t join pg_class c on c.oid = t.relation
where not c.relispartition and exists (select from publication) and "bemi".wal_refusal(t.relation) is null
  and not exists (select from publication p join pg_publication_rel r on r.prpubid = p.oid where r.prrelid = t.relation)
union all
select 'error', 'slot-missing', s.name,
  'there is no such replication slot: changes are not kept for the worker. What it had not read is lost, and is to be reconciled afterwards',
  -- Where the worker has read before, it records the gap.
  case when exists (select from "bemi".checkpoints) then 'bemi worker --once --recreate-slot' else 'bemi init --capture wal' end
from slots s
where exists (select from tables) and s.plugin is null and current_setting('wal_level') = 'logical'
union all
select 'error', 'slot-lost', s.name,
  'the server removed WAL before the worker read it: nothing more can be read from this slot. The worker records the gap, which is to be reconciled',
  'bemi worker --once --recreate-slot' || case when s.name <> "bemi".slot_name() then ' --slot ' || s.name else '' end
from slots s
where s.wal_status = 'lost'
union all
select 'error', 'slot-foreign', s.name,
  'this replication slot is not one of this database for pgoutput',
  format('select pg_drop_replication_slot(%L); select pg_create_logical_replication_slot(%1$L, ''pgoutput'');', s.name)
from slots s
where s.plugin <> 'pgoutput' or s.database <> current_database()
union all
select 'warning', 'slot-unused', s.name,
  'no table is tracked from the Write-Ahead Log, and this replication slot keeps it all the same',
  format('select pg_drop_replication_slot(%L);', s.name)
from slots s
where s.plugin is not null and not s.active and not exists (select from tables)
union all
select 'warning', 'worker-behind', s.name,
  format('%s of WAL wait for a worker%s', pg_size_pretty(s.retained), case when s.active then '' else ', and none is reading' end),
  'bemi worker'
from slots s
where s.retained > coalesce((select setting::bigint * 1024 * 512 from pg_settings
  where name = 'max_slot_wal_keep_size' and setting::bigint > 0), 1073741824) and s.wal_status <> 'lost'
union all
select 'warning', 'slot-unbounded', 'max_slot_wal_keep_size',
  'is not set: while no worker runs, the slot keeps WAL until the disk is full',
  'alter system set max_slot_wal_keep_size = ''10GB''; select pg_reload_conf();'
from pg_settings
where name = 'max_slot_wal_keep_size' and setting = '-1' and exists (select from slots where plugin is not null)
union all
select 'note', 'unsealed', 'messages',
  'any role can write messages that pass for the database''s own: who did it can be forged',
  'bemi init --seal'
where exists (select from tables) and exists (select from "bemi".seal where sealed_by is null)
union all
select 'warning', 'seal-not-enforced', 'messages',
  'are sealed, and messages without the seal still pass',
  'select "bemi".seal();'
from "bemi".seal
where sealed_by is not null and not pg_is_in_recovery() and (enforced_from is null or enforced_from > pg_current_wal_insert_lsn())
order by 1, 2, 3
`,
  `-- What bemi doctor asks about the log itself and who may touch it: severity, name, object, problem, repair.
with log as (
  select '"bemi".changes'::regclass as relation
  union all
  select inhrelid::regclass from pg_inherits where inhparent = '"bemi".changes'::regclass
), owner as (
  select relowner as id, pg_get_userbyid(relowner) as name, rolsuper as is_superuser
  from pg_class c join pg_roles r on r.oid = c.relowner where c.oid = '"bemi".changes'::regclass
), definers (name, has_path) as (
  -- Here the generator puts every function that the migrations make SECURITY DEFINER, and whether with a search_path.
  values ('baseline', true), ('begin_statement', true), ('begin_truncate', true), ('capture_row', true), ('capture_statement', true), ('capture_truncate', true), ('current_source', true), ('describe_types', true), ('emit_context', false), ('emit_held', true), ('end_plain_reads', true), ('end_statement', true), ('ensure_publication', true), ('find_checkpoint', true), ('find_plain_reads', true), ('follow', true), ('has_wide_key', true), ('hold_context', true), ('is_strict', true), ('logged_keys', true), ('maintain', true), ('note_emission', true), ('note_masks', true), ('on_ddl', true), ('on_drop', true), ('on_rewrite', true), ('open_checkpoint', true), ('open_frame', true), ('read_seal', true), ('read_tables', true), ('reconcile', true), ('reconcile_absent', true), ('reconcile_rows', true), ('refuse_foreign_cast', true), ('register_source', true), ('retry_set_aside', true), ('source_of_this_start', true), ('successor_of', true), ('this_cluster', true), ('track', true), ('untrack', true), ('wal_lag', true), ('write_change', true), ('write_difference', true), ('write_gap', true), ('write_or_set_aside', true)
), grants as (
  select c.oid, c.oid::regclass as relation, c.relkind, g.grantee, g.privilege_type,
    case g.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end as grantee_name,
    coalesce((select r.rolreplication from pg_roles r where r.oid = g.grantee), false) as is_worker
  from pg_class c, aclexplode(c.relacl) g
  where (c.relnamespace = '"bemi"'::regnamespace or c.oid = to_regclass('public.changes')
      and obj_description(c.oid, 'pg_class') = 'Changes of tracked tables, from "bemi".changes')
    and c.relkind in ('r', 'p', 'v', 'S') and g.grantee <> c.relowner
)
select 'warning' as severity, 'default-partition' as name, '"bemi".changes_default' as object,
  'holds changes: the partitions for them are missing' as problem,
  'select "bemi".maintain();' as repair
where exists (select from "bemi".changes_default)
union all
select 'warning', 'partitions-ahead', '"bemi".changes',
  'the partition of next month is missing: nobody calls maintain()',
  'select "bemi".maintain();'
where to_regclass('"bemi".changes_p' || to_char(date_trunc('month', now() at time zone 'UTC') + interval '1 month', 'YYYYMM')) is null
union all
select 'error', 'append-only', l.relation::text,
  case when t.tgname is null then format('the trigger %s is missing', w.name) else format('the trigger %s is disabled', w.name) end
    || ': the log can be rewritten',
  case when t.tgname is null
    then format('create trigger %s before %s on %s for each %s execute function "bemi".refuse_rewrite();', w.name, w.events, l.relation, w.level)
    else format('alter table %s enable trigger %I;', l.relation, w.name) end
from log l
  cross join (values ('append_only', 'update or delete', 'row'), ('append_only_truncate', 'truncate', 'statement')) as w (name, events, level)
  left join pg_trigger t on t.tgrelid = l.relation and t.tgname = w.name
where (t.tgname is null or t.tgenabled not in ('O', 'A'))
  -- A partition's row trigger comes back with that of the whole.
  and not (w.level = 'row' and t.tgname is null and l.relation <> '"bemi".changes'::regclass
    and not exists (select from pg_trigger p where p.tgrelid = '"bemi".changes'::regclass and p.tgname = w.name))
union all
select 'error', 'row-security', l.relation::text,
  'row security is on: changes can be hidden, and refused',
  format('alter table %s disable row level security, no force row level security;', l.relation)
from log l join pg_class c on c.oid = l.relation
where c.relrowsecurity or c.relforcerowsecurity
union all
select 'error', 'log-owner', c.oid::regclass::text,
  format('belongs to %I, and the functions that write the log to %I', pg_get_userbyid(c.relowner), pg_get_userbyid(p.proowner)),
  format('alter table %s owner to %I;', c.oid::regclass, pg_get_userbyid(p.proowner))
from pg_class c, pg_proc p
where p.oid = '"bemi".emit_context()'::regprocedure and c.relnamespace = '"bemi"'::regnamespace
  and c.relkind in ('r', 'p', 'v') and c.relowner <> p.proowner
union all
select 'error', 'function-changed', p.oid::regprocedure::text,
  'is no longer SECURITY DEFINER, or without a search_path of its own: writes of other roles are not recorded, or fail',
  format('alter function %s security definer%s;', p.oid::regprocedure,
    case when d.has_path then ' set search_path = pg_catalog, pg_temp' end)
from definers d join pg_proc p on p.proname = d.name and p.pronamespace = '"bemi"'::regnamespace
where not p.prosecdef
  or d.has_path and coalesce(array_to_string(p.proconfig, ' '), '') not like E'%search\\\\_path=pg\\\\_catalog, pg\\\\_temp%'
union all
select 'error', 'log-rights', relation::text,
  format('%s may %s it', grantee_name, string_agg(lower(privilege_type), ', ' order by privilege_type)),
  format('revoke %s on %s %s from %s;', string_agg(lower(privilege_type), ', ' order by privilege_type),
    case relkind when 'S' then 'sequence' else 'table' end, relation, grantee_name)
from grants
where (grantee = 0 or privilege_type <> 'SELECT' and relkind <> 'S')
  -- What a worker needs: see bemi generate roles.
  and not (is_worker and (privilege_type = 'INSERT' or relation = '"bemi".checkpoints'::regclass and privilege_type = 'UPDATE'))
group by relation, relkind, grantee_name
union all
select 'error', 'function-rights', p.oid::regprocedure::text,
  'everybody may call it',
  format('revoke execute on function %s from public;', p.oid::regprocedure)
from pg_proc p
where p.pronamespace = '"bemi"'::regnamespace
  and exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) where grantee = 0)
union all
select 'warning', 'owner-member', quote_ident(r.rolname),
  format('is a member of %I, the owner of the log: it can switch tracking off, and erase', o.name),
  format('revoke %I from %I;', o.name, r.rolname)
from owner o join pg_auth_members m on m.roleid = o.id join pg_roles r on r.oid = m.member
where not r.rolsuper
union all
select 'warning', 'owner-connected', quote_ident(a.usename),
  format('%s, connected now, %s: it can switch tracking off, and erase',
    coalesce(nullif(min(a.application_name), ''), 'an application'),
    case when bool_or(r.rolsuper) then 'is a superuser' else 'owns the log' end),
  'bemi generate roles | psql  -- then let the application connect as bemi_application'
from pg_stat_activity a join pg_roles r on r.oid = a.usesysid, owner o
where a.datname = current_database() and a.pid <> pg_backend_pid() and a.backend_type = 'client backend'
  and (r.rolsuper or r.oid = o.id)
  and a.application_name !~ '^(bemi|psql|pg_dump|pgAdmin|DBeaver)'
group by a.usename
union all
select 'warning', 'set-aside', '"bemi".set_aside',
  format('%s changes that the log refused are kept aside (SQLSTATE %s)', count(*), string_agg(distinct sqlstate, ', ')),
  'select "bemi".retry_set_aside();'
from "bemi".set_aside
having count(*) > 0
union all
select 'error', 'gap', format('%s..%s', g.from_lsn, g.to_lsn),
  format('WAL was lost before it was read (%s), found %s: what changed since %s is missing', g.reason,
    to_char(g.detected_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI'),
    coalesce(to_char(g.from_time at time zone 'UTC', 'YYYY-MM-DD HH24:MI'), 'then')),
  'bemi reconcile'
from "bemi".gaps g
where g.reconciled_at is null
union all
select 'warning', 'view-missing', 'public.changes',
  'the view under which Bemi''s documentation and readers know the log is missing',
  'select "bemi".ensure_view();'
where to_regnamespace('public') is not null and to_regclass('public.changes') is null
order by 1, 2, 3
`,
];
