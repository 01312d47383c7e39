import type { Database } from "../database/port.ts";
import { inSchema } from "./schema.ts";

/** A replication slot, and how long it is good for; sizes are bytes of WAL. */
export interface SlotStatus {
  /** Its name. */
  readonly name: string;
  /**
   * `reserved`, `extended` beyond `max_wal_size`, `unreserved` where it is about to be lost; `lost` where WAL was
   * removed before it was read, `missing` where there is no such slot.
   */
  readonly walStatus: "reserved" | "extended" | "unreserved" | "lost" | "missing";
  /** Why the server gave it up. */
  readonly invalidationReason?: string;
  /** Whether something reads it now. */
  readonly active: boolean;
  /** The process that does. */
  readonly activePid?: number;
  /** Bytes of WAL that it keeps. */
  readonly retained?: number;
  /** Written and not confirmed to have been read. */
  readonly confirmedLag?: number;
  /** What may still be written before some is lost; absent where `max_slot_wal_keep_size` limits nothing. */
  readonly safeWalSize?: number;
  /** Where WAL ended at the time. */
  readonly lsn: string;
  /** When that was, in seconds since 1970. */
  readonly at: number;
  /** Bytes a second, since the earlier look. */
  readonly walRate?: number;
  /** Seconds until WAL is lost at that rate, if none is read; absent where that is never, or not known. */
  readonly timeToLoss?: number;
  /** Bytes that the server wrote to its disk while it decoded transactions beyond `logical_decoding_work_mem`. */
  readonly spilledBytes?: number;
  /** How many transactions that were. */
  readonly spilledTransactions?: number;
}

/** Connections of workers, by role and address. */
export interface WorkerConnections {
  /** The role that they connect as. */
  readonly role: string;
  /** The address that they connect from. */
  readonly address?: string;
  /** How many there are. */
  readonly connections: number;
  /** Age of the oldest, in seconds; absent where the role may not see it. */
  readonly age?: number;
  /** Whether one of them streams. */
  readonly isStreaming: boolean;
}

interface SlotStatusOptions {
  readonly schema: string;
  /** The one that the worker last read. */
  readonly name: string | undefined;
  /** Whether there should be one. */
  readonly isExpected: boolean;
  readonly since: SlotStatus | undefined;
}

export async function slotStatus(
  database: Database,
  { schema, name, isExpected, since }: SlotStatusOptions,
): Promise<SlotStatus | undefined> {
  // The default name as "bemi".slot_name() makes it, which a reader may not call.
  const [row] = await database.query<{ json: string }>(
    inSchema(
      schema,
      `with own as (
        select coalesce($1::text, 'bemi' || case when n.nspname <> 'bemi' then '_' || left(md5(n.nspname), 6) else '' end || '_' || d.oid) as name
        from pg_database d, pg_namespace n where d.datname = current_database() and n.oid = '"bemi"'::regnamespace
      ), wal as (
        select case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end as lsn
      )
      select json_strip_nulls(pg_catalog.json_build_object('name', own.name, 'walStatus', case when s.slot_name is null then 'missing'
          else coalesce(s.wal_status, 'lost') end,
        'invalidationReason', to_jsonb(s) ->> 'invalidation_reason', 'active', coalesce(s.active, false), 'activePid', s.active_pid,
        'retained', wal.lsn - s.restart_lsn, 'confirmedLag', greatest(wal.lsn - s.confirmed_flush_lsn, 0),
        'safeWalSize', s.safe_wal_size, 'lsn', wal.lsn, 'at', extract(epoch from clock_timestamp()),
        'spilledBytes', spilled.spill_bytes, 'spilledTransactions', spilled.spill_txns,
        'written', wal.lsn - $2::text::pg_lsn))::text as json
      from own cross join wal left join pg_replication_slots s on s.slot_name = own.name and s.database = current_database()
        left join pg_stat_replication_slots spilled on spilled.slot_name = s.slot_name`,
    ),
    [name ?? null, since?.lsn ?? null],
  );
  const { written, ...slot } = JSON.parse(row?.json ?? "{}") as SlotStatus & { written?: number };
  if (slot.walStatus === "missing" && !isExpected) return undefined;
  const seconds = since === undefined ? 0 : slot.at - since.at;
  if (written === undefined || seconds <= 0) return slot;
  const walRate = written / seconds;
  const left = timeToLoss(slot.safeWalSize, walRate);
  return { ...slot, walRate, ...(left !== undefined && Number.isFinite(left) ? { timeToLoss: left } : {}) };
}

/**
 * Seconds until so many bytes are written at a rate; `Infinity` where nothing is written.
 *
 * @param safe bytes of WAL that may still be written before some is lost
 * @param rate bytes a second
 * @example
 * ```ts
 * import { timeToLoss } from "@bemi/core/install";
 * console.log(timeToLoss(10_000_000, 1000)); // 10000
 * ```
 */
export function timeToLoss(safe: number | undefined, rate: number | undefined): number | undefined {
  if (safe === undefined || rate === undefined) return undefined;
  return rate > 0 ? Math.max(0, safe) / rate : Infinity;
}

export async function workerConnections(database: Database): Promise<WorkerConnections[]> {
  const rows = await database.query<{ json: string }>(
    `select json_strip_nulls(pg_catalog.json_build_object('role', usename, 'address', host(client_addr), 'connections', count(*),
      'age', extract(epoch from clock_timestamp() - min(backend_start)),
      'isStreaming', bool_or(coalesce(pid in (select active_pid from pg_replication_slots), false))))::text as json
    from pg_stat_activity where datname = current_database() and application_name = 'bemi worker'
    group by usename, client_addr order by usename, client_addr`,
  );
  return rows.map(({ json }) => JSON.parse(json) as WorkerConnections);
}
