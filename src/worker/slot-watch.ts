import { formatLsn } from "./decode.ts";
import type { WorkerEvent } from "./run-worker.ts";
import type { Link } from "./link.ts";
import { slotState } from "./slot-state.ts";
import type { Source } from "./source.ts";

const INTERVAL = 5000;

/** Says where the slot stands, at most every few seconds, however often it is called. */
export function slotWatch(
  { source, heartbeat }: Pick<Link, "source" | "heartbeat">,
  log: (event: WorkerEvent) => void,
): () => Promise<void> {
  let saidAt = -Infinity;
  return async () => {
    if (performance.now() - saidAt < INTERVAL) return;
    saidAt = performance.now();
    const { flushed, confirmed, retained, walStatus, safe } = await slotState(source);
    heartbeat.confirmed(confirmed);
    const confirmedLag = flushed > confirmed ? flushed - confirmed : 0n;
    const spilled = await spilledBySlot(source);
    log({ kind: "slot", flushed: formatLsn(flushed), confirmedLag, retained, walStatus, safe, ...spilled });
  };
}

/** Counted by the server from when the slot was made, or its statistics were reset. */
async function spilledBySlot(
  { db, slot }: Source,
): Promise<{ spilledBytes: bigint; spilledTransactions: bigint }> {
  const [row] = await db.query<{ bytes: string; transactions: string }>(
    `select spill_bytes::text as bytes, spill_txns::text as transactions from pg_stat_replication_slots
    where slot_name = $1::text`,
    [slot],
  );
  return { spilledBytes: BigInt(row?.bytes ?? 0), spilledTransactions: BigInt(row?.transactions ?? 0) };
}
