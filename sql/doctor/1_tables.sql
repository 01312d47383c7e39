-- What bemi doctor asks about the tracked tables: severity, name, object, problem, repair.
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
where p.proname like E'\\_bemi\\_%' and p.pronamespace <> '"bemi"'::regnamespace and not t.tgisinternal and t.tgparentid = 0
union all
select 'warning', 'other-bemi', e.evtname::text,
  'this event trigger of another Bemi gives new tables its triggers',
  format('drop event trigger %I;', e.evtname)
from pg_event_trigger e join pg_proc p on p.oid = e.evtfoid
where p.proname like E'\\_bemi\\_%' and p.pronamespace <> '"bemi"'::regnamespace
order by 1, 2, 3
