-- What bemi doctor asks about settings that switch things off unseen: severity, name, object, problem, repair.
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
