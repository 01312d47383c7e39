import type { Database } from "../database/port.ts";
import { SQLSTATE, sqlstateOf } from "../database/sqlstate.ts";
import { BemiError } from "../errors.ts";

export interface NewSlot {
  readonly slot: string;
  /** Whether a standby keeps it too (PostgreSQL 17). */
  readonly failover: boolean;
}

/** Milliseconds to wait for transactions that are open, whose end the slot has to see. */
const PATIENCE = 60_000;

/**
 * Makes a logical slot for pgoutput, and drops what is in its place where `replace` says so. Several callers at once
 * make one.
 *
 * @returns whether it made it
 * @throws {BemiError} `lock_timeout` where transactions stay open, `wal_unavailable` where the server has no failover slots
 */
export async function makeSlot(
  db: Database,
  { slot, failover }: NewSlot,
  replace: (tx: Database) => Promise<boolean> = () => Promise.resolve(true),
): Promise<boolean> {
  try {
    return await db.transaction(async (tx) => {
      await tx.query(
        `select set_config('statement_timeout', '${PATIENCE}', true), pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('bemi.slot ' || $1::text, 0))`,
        [slot],
      );
      if (!await replace(tx)) return false;
      const [server] = await tx.query<{ has_failover: boolean }>(
        "select current_setting('server_version_num')::integer >= 170000 as has_failover",
      );
      if (failover && !server?.has_failover) {
        throw new BemiError(
          "wal_unavailable",
          "This server has no failover slots: PostgreSQL 17 brought them",
          {
            hint:
              "Leave --failover out. After a failover the worker records a gap, which bemi reconcile closes.",
          },
        );
      }
      await tx.query(
        "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1::text",
        [slot],
      );
      await tx.query(
        failover
          ? "select pg_create_logical_replication_slot($1::text, 'pgoutput', failover => true)"
          : "select pg_create_logical_replication_slot($1::text, 'pgoutput')",
        [slot],
      );
      return true;
    });
  } catch (error) {
    if (sqlstateOf(error) !== SQLSTATE.queryCanceled) throw error;
    throw new BemiError(
      "lock_timeout",
      `The replication slot "${slot}" waits for transactions that are open`,
      {
        hint: "End them, then try again: select pid, xact_start, state, query from pg_stat_activity " +
          "where backend_xid is not null order by xact_start; and see pg_prepared_xacts.",
        cause: error,
      },
    );
  }
}
