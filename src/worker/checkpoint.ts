import type { Database } from "../database/port.ts";
import { BemiError } from "../errors.ts";
import { inSchema } from "../install/schema.ts";
import { formatLsn, type Lsn, parseLsn } from "./decode.ts";
import { recreateSlot } from "./recreate-slot.ts";
import type { WorkerEvent } from "./run-worker.ts";
import { findSlot, slotLost, slotState } from "./slot-state.ts";
import type { Source } from "./source.ts";
import { timelineFork } from "./timeline.ts";

export interface CheckpointOptions {
  readonly source: Source;
  /** The database that holds the log. */
  readonly db: Database;
  readonly schema: string;
  /** Where `START_REPLICATION` would go: asked for the history of timelines. */
  readonly target: string | object;
  readonly recreatesSlot: boolean;
  readonly log: (event: WorkerEvent) => void;
}

/** Where a source's changes belong in the log. */
export interface Place {
  readonly sourceId: number;
  readonly incarnation: number;
}

/**
 * Finds out whether the slot goes on from where the log ends, makes it anew where that was asked for, and records what
 * lies between as a gap. The checkpoint's row is what two workers meet at, so it is there from the start.
 *
 * @throws {BemiError} `gap` where nothing can be read from the slot, `wal_unavailable` where there never was one
 */
export async function openCheckpoint(options: CheckpointOptions): Promise<Place> {
  const { source, db, schema, log } = options;
  const known = await findCheckpoint(options);
  const isReset = await restoreSlot(options, known);
  const { confirmed, flushed } = await slotState(source);
  const isOther = known !== undefined && !known.is_own && known.is_same_system;
  const fork = isOther ? await timelineFork(options.target, source.timeline, known.timeline) : undefined;
  const [row] = await db.query<
    Record<"source_id" | "incarnation" | "gap_from" | "gap_to" | "gap_reason", string>
  >(
    inSchema(
      schema,
      `select source_id::text, incarnation::text, gap_from::text, gap_to::text, gap_reason from "bemi".open_checkpoint(
        $1::text, $2::text::integer, $3::text, $4::text, $5::text::bigint, $6::text::pg_lsn, $7::text::pg_lsn,
        $8::text::pg_lsn, $9::text::boolean, $10::text)`,
    ),
    [
      ...identity(source),
      source.slot,
      String(source.publicationOid),
      formatLsn(confirmed),
      formatLsn(flushed),
      fork === undefined ? null : formatLsn(fork),
      String(isReset?.isServerReset ?? false),
      isReset?.reason ?? null,
    ],
  );
  if (!row) throw new BemiError("schema_missing", "Bemi's schema is damaged", { hint: "Run: bemi migrate" });
  if (row.gap_reason) {
    log({ kind: "gap", from: row.gap_from, to: row.gap_to, reason: row.gap_reason });
  }
  return { sourceId: Number(row.source_id), incarnation: Number(row.incarnation) };
}

interface KnownCheckpoint {
  readonly slot: string;
  readonly end_lsn: string;
  readonly timeline: number;
  readonly is_own: boolean;
  readonly is_same_system: boolean;
}

async function findCheckpoint(
  { source, db, schema }: CheckpointOptions,
): Promise<KnownCheckpoint | undefined> {
  const [row] = await db.query<KnownCheckpoint>(
    inSchema(
      schema,
      `select slot, end_lsn::text, timeline, is_own, is_same_system
      from "bemi".find_checkpoint($1::text, $2::text::integer, $3::text) where source_id is not null`,
    ),
    identity(source),
  );
  return row;
}

/** A slot that can be read, made anew by choice only; returns why, where it was. */
async function restoreSlot(
  { source, recreatesSlot, log }: CheckpointOptions,
  known: KnownCheckpoint | undefined,
): Promise<{ reason: string; isServerReset: boolean } | undefined> {
  const found = await findSlot(source);
  const flushed = found.kind === "usable" ? found.state.flushed : found.flushed;
  const isServerReset = known !== undefined && known.is_own && flushed < parseLsn(known.end_lsn);
  if (found.kind === "usable" && !isServerReset) return undefined;
  if (!recreatesSlot) {
    if (isServerReset) throw serverReset(flushed, known);
    if (found.kind === "missing" && !known) {
      throw new BemiError("wal_unavailable", `There is no replication slot "${source.slot}"`, {
        hint: "Run: bemi init --capture wal",
      });
    }
    if (found.kind === "missing" && known && await isUsable(source, known.slot)) {
      throw new BemiError("wal_unavailable", `There is no replication slot "${source.slot}"`, {
        hint: `The log is filled from the slot "${known.slot}": pass --slot ${known.slot}.`,
      });
    }
    if (found.kind !== "usable") throw slotLost(source, found);
  }
  if (await recreateSlot(source, isServerReset)) log({ kind: "slot-created", slot: source.slot });
  if (isServerReset) return { reason: "the server was set back to a copy of its files", isServerReset };
  return {
    reason: found.kind === "invalidated" ? `the slot was invalidated (${found.why})` : "the slot was gone",
    isServerReset,
  };
}

/** Whether a slot of another name is there to be read: then nothing is lost, and the name was wrong. */
async function isUsable(source: Source, slot: string): Promise<boolean> {
  return slot !== source.slot && (await findSlot({ ...source, slot })).kind === "usable";
}

function serverReset(flushed: Lsn, known: KnownCheckpoint): BemiError {
  return new BemiError(
    "gap",
    `The server's Write-Ahead Log ends at ${
      formatLsn(flushed)
    }, before ${known.end_lsn}, up to which it is in the log: ` +
      "it was set back to a copy of its files",
    { hint: "Run: bemi worker --recreate-slot, which records the gap, and then: bemi reconcile." },
  );
}

function identity({ systemIdentifier, timeline, database }: Source): string[] {
  return [systemIdentifier, String(timeline), database];
}
