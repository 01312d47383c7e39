import { BemiError } from "../errors.ts";
import { inSchema } from "../install/schema.ts";
import { type Lsn, parseLsn } from "./decode.ts";
import type { Source } from "./source.ts";

/** Where the slot stands, asked anew each time. */
export interface SlotState {
  /** All WAL up to here is flushed, and so can be decoded. */
  readonly flushed: Lsn;
  readonly confirmed: Lsn;
  /** Bytes of WAL that the slot keeps. */
  readonly retained: bigint;
  /** `reserved`, `extended` or `unreserved`: whether the server still owes it that WAL. */
  readonly walStatus: string;
  /** Bytes of WAL that may still be written before it is lost; absent where nothing limits what the slot keeps. */
  readonly safe: bigint | undefined;
  /** The backend that reads it now. */
  readonly activePid: number | undefined;
}

/** What was found under a slot's name; `why` is what the server says of one that it invalidated. */
export type FoundSlot =
  | { readonly kind: "usable"; readonly state: SlotState }
  | { readonly kind: "missing"; readonly flushed: Lsn }
  | { readonly kind: "invalidated"; readonly flushed: Lsn; readonly why: string };

/**
 * Something was lost while a session read: the publication was made anew, or somebody moved the slot past what the log
 * holds. A new session finds it, and records it as a gap.
 */
export class LostMeanwhile extends Error {}

/** Where a publication never was, nothing was dropped or lost. */
async function requireTables({ db, schema }: Source): Promise<void> {
  const [row] = await db.query<{ from_wal: string; by_triggers: string }>(inSchema(
    schema,
    `select count(*) filter (where capture = 'wal')::text as from_wal,
      count(*) filter (where capture = 'trigger' and relation = root)::text as by_triggers
    from "bemi".tracked_tables`,
  ));
  if (row?.from_wal !== "0") return;
  throw new BemiError(
    "wal_unavailable",
    `Nothing is captured from the Write-Ahead Log here (tables by triggers: ${row.by_triggers})`,
    {
      hint:
        "What triggers capture needs no worker. For one to have something to read: bemi init --capture wal",
    },
  );
}

/**
 * Looks at the slot, and that the publication is there too: decoding without one loses changes on PostgreSQL 18.
 *
 * @throws {BemiError} `wal_unavailable` where the publication is missing, or the slot is somebody else's
 */
export async function findSlot(source: Source): Promise<FoundSlot> {
  const { db, slot, publication, publicationOid } = source;
  const [state = {}] = await db.query<Record<string, string | null>>(
    `select pg_current_wal_flush_lsn()::text as flushed, s.confirmed_flush_lsn::text as confirmed, s.plugin, s.database,
      s.wal_status, s.safe_wal_size::text as safe, (pg_current_wal_lsn() - s.restart_lsn)::bigint::text as retained, s.active_pid::text as active_pid,
      coalesce(to_jsonb(s) ->> 'invalidation_reason', 'wal_removed') as why,
      (select oid::text from pg_publication where pubname = $2::text) as published, current_database() as here
    from (select) as one left join pg_replication_slots s on s.slot_name = $1::text`,
    [slot, publication],
  );
  if (typeof state.published !== "string") {
    if (typeof state.plugin !== "string") await requireTables(source);
    throw new BemiError("wal_unavailable", `There is no publication "${publication}"`, {
      hint: "Run: bemi init --capture wal. What was changed since it was dropped is lost.",
    });
  }
  const flushed = parseLsn(state.flushed ?? "0/0");
  if (typeof state.plugin !== "string") return { kind: "missing", flushed };
  if (state.plugin !== "pgoutput" || state.database !== state.here) {
    throw new BemiError(
      "wal_unavailable",
      `The replication slot "${slot}" is not one of this database for pgoutput`,
      { hint: "Choose another name with --slot." },
    );
  }
  if (state.wal_status === "lost") return { kind: "invalidated", flushed, why: state.why ?? "" };
  if (BigInt(state.published) !== publicationOid) throw new LostMeanwhile();
  return {
    kind: "usable",
    state: {
      flushed,
      confirmed: parseLsn(state.confirmed ?? "0/0"),
      retained: BigInt(state.retained ?? "0"),
      walStatus: state.wal_status ?? "",
      safe: typeof state.safe === "string" ? BigInt(state.safe) : undefined,
      activePid: state.active_pid ? Number(state.active_pid) : undefined,
    },
  };
}

/**
 * The slot as it is now.
 *
 * @throws {BemiError} `gap` where it is gone or was invalidated since it was read
 */
export async function slotState(source: Source): Promise<SlotState> {
  const found = await findSlot(source);
  if (found.kind === "usable") return found.state;
  throw slotLost(source, found);
}

/** What there is to say of a slot from which nothing more can be read. */
export function slotLost({ slot }: Source, found: Exclude<FoundSlot, { kind: "usable" }>): BemiError {
  const remedy = "Run: bemi worker --recreate-slot, which records the gap, and then: bemi reconcile.";
  return found.kind === "missing"
    ? new BemiError("gap", `The replication slot "${slot}" is gone: what was changed since is lost`, {
      hint: remedy,
    })
    : new BemiError(
      "gap",
      `The replication slot "${slot}" was invalidated (${found.why}): what was changed since is lost`,
      { hint: `${remedy}${PREVENTIONS[found.why] ?? ""}` },
    );
}

const PREVENTIONS: Readonly<Record<string, string>> = {
  wal_removed: " A larger max_slot_wal_keep_size prevents it.",
  idle_timeout: " A worker that runs, or idle_replication_slot_timeout = 0, prevents it.",
};
