import type { Database } from "../../src/database/port.ts";

/** Everything that a dump of the database would show, as sorted lines: what uninstall must leave as it was. */
export async function fingerprint(db: Database): Promise<string[]> {
  const rows = await db.query<{ line: string }>(`
    select line from (
      select format('schema %s %s %s', nspname, nspacl, obj_description(oid)) as line from pg_namespace where nspname !~ '^pg_(temp|toast)'
      union all
      select format('relation %s %s %s %s %s', oid::regclass, relkind, relreplident, relacl, obj_description(oid))
      from pg_class where relnamespace not in ('pg_catalog'::regnamespace, 'pg_toast'::regnamespace, 'information_schema'::regnamespace)
      union all
      select format('function %s %s %s', oid::regprocedure, proacl, md5(prosrc)) from pg_proc
      where pronamespace not in ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
      union all
      select format('trigger %s %s', pg_get_triggerdef(oid), tgenabled) from pg_trigger where not tgisinternal
      union all select format('event trigger %s %s', evtname, evtenabled) from pg_event_trigger
      union all select format('publication %s', pubname) from pg_publication
      union all select format('type %s', oid::regtype) from pg_type
      where typnamespace not in ('pg_catalog'::regnamespace, 'pg_toast'::regnamespace, 'information_schema'::regnamespace)
      union all select format('default acl %s %s', defaclobjtype, defaclacl) from pg_default_acl
    ) as everything order by line`);
  return rows.map((row) => row.line);
}
