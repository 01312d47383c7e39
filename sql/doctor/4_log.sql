-- What bemi doctor asks about the log itself and who may touch it: severity, name, object, problem, repair.
with log as (
  select '"bemi".changes'::regclass as relation
  union all
  select inhrelid::regclass from pg_inherits where inhparent = '"bemi".changes'::regclass
), owner as (
  select relowner as id, pg_get_userbyid(relowner) as name, rolsuper as is_superuser
  from pg_class c join pg_roles r on r.oid = c.relowner where c.oid = '"bemi".changes'::regclass
), definers (name, has_path) as (
  -- Here the generator puts every function that the migrations make SECURITY DEFINER, and whether with a search_path.
  values ('emit_context', false)
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
  or d.has_path and coalesce(array_to_string(p.proconfig, ' '), '') not like E'%search\\_path=pg\\_catalog, pg\\_temp%'
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
