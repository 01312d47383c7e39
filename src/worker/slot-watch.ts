import { formatLsn } from "./decode.ts";
import type { WorkerEvent } from "./run-worker.ts";
import type { Link } from "./link.ts";
import { slotState } from "./slot-state.ts";

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
    log({ kind: "slot", flushed: formatLsn(flushed), confirmedLag, retained, walStatus, safe });
  };
}
