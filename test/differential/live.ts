import type { Database } from "../../src/database/port.ts";

/** A table as the catalog has it now. */
export interface LiveTable {
  /** Quoted, with its schema. */
  readonly at: string;
  readonly schema: string;
  readonly name: string;
  /** pg_class.relkind. */
  readonly kind: string;
  readonly isPartition: boolean;
  readonly isHeir: boolean;
  /** list, hash or range, of a partitioned table. */
  readonly strategy: string | null;
  readonly keys: readonly string[];
  readonly keyName: string | null;
  readonly columns: readonly LiveColumn[];
}

export interface LiveColumn {
  readonly name: string;
  /** Its name among COLUMN_TYPES, or pg_type's; `[]` behind it for an array. */
  readonly type: string;
  /** For a cast. */
  readonly cast: string;
  readonly generated: "" | "s" | "v";
  readonly identity: "" | "a" | "d";
  readonly isNotNull: boolean;
}

/** What a scenario's schema holds. */
export interface Live {
  readonly schema: string;
  readonly tables: readonly LiveTable[];
  readonly composites: readonly string[];
}

/** The schema may have been renamed, its name begins with `prefix`; the least of two is where tables were to begin with. */
export async function readLive(db: Database, prefix: string): Promise<Live> {
  const [row] = await db.query<{ json: string }>(
    `select json_build_object(
      'schema', (select min(nspname) from pg_namespace where starts_with(nspname, $1::text)),
      'composites', (select coalesce(json_agg(t.typname order by t.typname), '[]') from pg_type t join pg_namespace n on n.oid = t.typnamespace
        join pg_class c on c.oid = t.typrelid where starts_with(n.nspname, $1::text) and c.relkind = 'c'),
      'tables', (select coalesce(json_agg(json_build_object('at', format('%I.%I', n.nspname, c.relname), 'schema', n.nspname, 'name', c.relname,
        'kind', c.relkind, 'isPartition', c.relispartition,
        'isHeir', not c.relispartition and exists (select from pg_inherits i where i.inhrelid = c.oid),
        'strategy', (select case partstrat when 'l' then 'list' when 'h' then 'hash' else 'range' end from pg_partitioned_table where partrelid = c.oid),
        'keyName', (select conname from pg_constraint where conrelid = c.oid and contype = 'p'),
        'keys', (select coalesce(json_agg(a.attname order by array_position(i.indkey::int2[], a.attnum)), '[]')
          from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey) where i.indrelid = c.oid and i.indisprimary),
        'columns', (select coalesce(json_agg(json_build_object('name', a.attname, 'generated', a.attgenerated, 'identity', a.attidentity,
            'isNotNull', a.attnotnull,
            'type', case when t.typsubscript = 'array_subscript_handler'::regproc then e.typname else t.typname end
              || case when a.atttypmod >= 0 and coalesce(e.typname, t.typname) in ('numeric', 'varchar', 'timestamp', 'interval') then '_mod' else '' end
              || case when t.typsubscript = 'array_subscript_handler'::regproc then '[]' else '' end,
            'cast', case when t.typsubscript = 'array_subscript_handler'::regproc then format('%I.%I[]', en.nspname, e.typname) else format('%I.%I', tn.nspname, t.typname) end
          ) order by a.attnum), '[]')
          from pg_attribute a join pg_type t on t.oid = a.atttypid join pg_namespace tn on tn.oid = t.typnamespace
            left join pg_type e on e.oid = t.typelem left join pg_namespace en on en.oid = e.typnamespace
          where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped)
        ) order by c.relispartition, c.relname), '[]')
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where starts_with(n.nspname, $1::text) and c.relkind in ('r', 'p'))
    )::text as json`,
    [prefix],
  );
  return JSON.parse(row?.json ?? "{}") as Live;
}
