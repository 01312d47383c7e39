-- What the worker remembers: checkpoints, gaps, and changes that the log refused.

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
