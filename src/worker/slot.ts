import { connect } from "../database/connect.ts";
import type { Database, DatabaseLike } from "../database/port.ts";
import { SQLSTATE, sqlstateOf } from "../database/sqlstate.ts";
import { BemiError } from "../errors.ts";
import { DEFAULT_SCHEMA } from "../identifiers.ts";
import { requireLogical } from "../install/decodable.ts";
import { inSchema, requireInstalled } from "../install/schema.ts";
import { makeSlot } from "./make-slot.ts";
import { slotName } from "./source.ts";

/** Options of {@linkcode createSlot}. */
export interface SlotOptions {
  /**
   * The schema of the installation.
   * @default "bemi"
   */
  readonly schema?: string | undefined;
  /**
   * Its name.
   * @default a name made of the schema's and the database's
   */
  readonly slot?: string | undefined;
  /**
   * Whether a standby keeps the slot too, so that nothing is lost by a failover (PostgreSQL 17, with
   * `sync_replication_slots` on the standby).
   * @default false
   */
  readonly failover?: boolean | undefined;
}

/**
 * Makes the publication and the replication slot, where they are missing. From then on the server keeps the WAL until
 * the worker has read it: set `max_slot_wal_keep_size`, so that a worker that is down cannot fill the disk.
 *
 * @throws {BemiError} `schema_missing`, `wal_unavailable`, `usage` where the slot cannot be called so, `lock_timeout` where
 * transactions stay open that it has to wait for
 * @example
 * ```ts
 * import postgres from "postgres";
 * import { install, trackAll } from "@bemi/core/install";
 * import { createSlot } from "@bemi/core/worker";
 * const sql = postgres();
 * await install(sql);
 * await createSlot(sql);
 * await trackAll(sql, { capture: "wal" });
 * ```
 */
export async function createSlot(
  db: DatabaseLike,
  options: SlotOptions = {},
): Promise<{ slot: string; created: boolean }> {
  const schema = options.schema ?? DEFAULT_SCHEMA;
  const database = connect(db);
  await requireInstalled(database, schema);
  const [facts] = await database.query<Record<string, string>>(inSchema(
    schema,
    `select current_setting('wal_level') as wal_level, version() as version, "bemi".slot_name() as slot`,
  ));
  requireLogical(facts?.wal_level, facts?.version);
  const slot = slotName(options.slot ?? facts?.slot);
  try {
    // Before the slot: decoding meets the publication as it was at the time.
    await database.query(inSchema(schema, 'select "bemi".ensure_publication()'));
    const existing = await find(database, slot);
    if (existing && (existing.failover || !options.failover)) return { slot, created: false };
    if (existing) throw isNotForFailover(slot);
    const created = await makeSlot(
      database,
      { slot, failover: options.failover ?? false },
      async (tx) => await find(tx, slot) === undefined,
    );
    return { slot, created };
  } catch (error) {
    throw explained(error, slot);
  }
}

async function find(db: Database, slot: string): Promise<{ failover: boolean } | undefined> {
  const [existing] = await db.query<{ failover: boolean }>(
    `select coalesce((to_jsonb(s) ->> 'failover')::boolean, false) as failover
    from pg_replication_slots s where slot_name = $1::text`,
    [slot],
  );
  return existing;
}

function isNotForFailover(slot: string): BemiError {
  return new BemiError("wal_unavailable", `The replication slot "${slot}" is there, and not for failover`, {
    hint: `While no worker runs (PostgreSQL 17): psql "dbname=… replication=database" ` +
      `-c 'ALTER_REPLICATION_SLOT ${slot} (FAILOVER true);'`,
  });
}

function explained(error: unknown, slot: string): unknown {
  switch (sqlstateOf(error)) {
    case SQLSTATE.insufficientPrivilege:
      return new BemiError(
        "wal_unavailable",
        "This role may not create a publication or a replication slot",
        {
          hint: "As a superuser: alter role … replication, and grant create on database … to it.",
          cause: error,
        },
      );
    case SQLSTATE.configurationLimitExceeded:
    case SQLSTATE.objectNotInPrerequisiteState:
      return new BemiError("wal_unavailable", `No replication slot is free for "${slot}"`, {
        hint:
          "Raise max_replication_slots and restart PostgreSQL, or drop a slot that nobody uses: see pg_replication_slots.",
        cause: error,
      });
  }
  return error;
}
