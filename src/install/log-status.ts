import type { Database } from "../database/port.ts";
import { inSchema } from "./schema.ts";
import type { Readable } from "./status.ts";

/** Times are ISO 8601. What the role may not see is absent. */
export interface LogStatus {
  /** When the last change was committed; absent as well where there is none. */
  readonly lastChangeAt: string | undefined;
  /** Seconds since the last change in the log. */
  readonly lastChangeAge: number | undefined;
  /** How far the worker has written. */
  readonly checkpoint: CheckpointStatus | undefined;
  /** What was lost and not reconciled. */
  readonly gaps: readonly GapStatus[] | undefined;
  /** Changes that the log refused. */
  readonly setAside: number | undefined;
  /** The partition that takes what no other does: it should be empty. */
  readonly defaultPartition: { readonly bytes: number; readonly rows: number | undefined };
  /** The newest partition by month. */
  readonly newestPartition: string | undefined;
  /** `pending` where messages without the seal still pass. */
  readonly seal: "off" | "pending" | "on" | undefined;
}

/** Where the worker last said that all is in the log. */
export interface CheckpointStatus {
  /** The slot that it reads. */
  readonly slot: string;
  /** The LSN up to which it has written. */
  readonly endLsn: string;
  /** Seconds. */
  readonly age: number;
  /** Milliseconds that its last heartbeat took through the Write-Ahead Log. */
  readonly heartbeat: number | undefined;
}

/** A stretch of the WAL that was lost before it was read. */
export interface GapStatus {
  /** The LSN where it begins. */
  readonly from: string;
  /** The LSN where it ends. */
  readonly to: string;
  /** Why it was lost. */
  readonly reason: string;
  /** When that was noticed. */
  readonly detectedAt: string;
}

interface LogStatusOptions {
  readonly schema: string;
  readonly readable: Readable;
  readonly see: <R>(
    what: string,
    where: readonly [readonly string[], Readable],
    look: () => Promise<R>,
  ) => Promise<R | undefined>;
}

/** What the log itself tells. */
export async function logStatus(
  database: Database,
  { schema, readable, see }: LogStatusOptions,
): Promise<LogStatus> {
  const ask = async <R>(sql: string): Promise<R | undefined> => {
    const [row] = await database.query<{ json: string | null }>(inSchema(schema, sql));
    return typeof row?.json === "string" ? JSON.parse(row.json) as R : undefined;
  };
  // The last by position, for which there is an index.
  const last = await see(
    "last change",
    [["changes", "sources"], readable],
    () =>
      ask<{ at: string; age: number }>(
        `select pg_catalog.json_build_object('at', max(c.committed_at), 'age', extract(epoch from now() - max(c.committed_at)))::text as json
      from "bemi".sources s cross join lateral (select committed_at from "bemi".changes where source_id = s.id
        order by commit_lsn desc, transaction_index desc limit 1) as c
      having count(*) > 0`,
      ),
  );
  const checkpoint = await see("checkpoint", [["checkpoints"], readable], () =>
    ask<CheckpointStatus>(
      `select json_strip_nulls(pg_catalog.json_build_object('slot', slot, 'endLsn', end_lsn,
        'age', extract(epoch from clock_timestamp() - updated_at), 'heartbeat', (to_jsonb(c) ->> 'heartbeat_ms')::integer))::text as json
      from "bemi".checkpoints c order by updated_at desc limit 1`,
    ));
  const gaps = await see("gaps", [["gaps"], readable], () =>
    ask<GapStatus[]>(
      `select coalesce(json_agg(pg_catalog.json_build_object('from', from_lsn, 'to', to_lsn, 'reason', reason, 'detectedAt', detected_at)
        order by detected_at), '[]')::text as json
      from "bemi".gaps g where to_jsonb(g) ->> 'reconciled_at' is null`,
    ));
  const setAside = await see(
    "rows set aside",
    [["set_aside"], readable],
    () => ask<number>('select count(*)::text as json from "bemi".set_aside'),
  );
  const seal = await see("seal", [["seal"], readable], () =>
    ask<"off" | "pending" | "on">(
      `select to_json(case when sealed_by is null then 'off' when enforced_from is null then 'pending' else 'on' end)::text as json
      from "bemi".seal`,
    ));
  const defaultRows = await see(
    "rows of the default partition",
    [["changes_default"], readable],
    () =>
      ask<number>(
        'select count(*)::text as json from (select from "bemi".changes_default limit 100000) as first',
      ),
  );
  const partitions = await ask<{ bytes: number; newest?: string }>(
    `select json_strip_nulls(pg_catalog.json_build_object('bytes', (
        select pg_relation_size(c.oid) from pg_class c
        where c.relnamespace = '"bemi"'::regnamespace and c.relname = 'changes_default'),
      'newest', (select max(c.relname::text) from pg_class c
        where c.relnamespace = '"bemi"'::regnamespace and c.relname ~ '^changes_p[0-9]{6}$')))::text as json`,
  );
  return {
    lastChangeAt: last?.at,
    lastChangeAge: last?.age,
    checkpoint,
    gaps,
    setAside,
    defaultPartition: { bytes: partitions?.bytes ?? 0, rows: defaultRows },
    newestPartition: partitions?.newest,
    seal,
  };
}
