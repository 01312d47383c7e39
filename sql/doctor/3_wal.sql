-- What bemi doctor asks about publication, slot and worker: severity, name, object, problem, repair.
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
