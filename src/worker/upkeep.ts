import type { PostgresLike } from "../database/port.ts";
import { maintain } from "../install/maintain.ts";
import type { Link } from "./link.ts";
import { codeOf, isTransient } from "./retry.ts";
import type { WorkerEvent } from "./run-worker.ts";

const INTERVAL = 3_600_000;

/** Makes partitions ahead, and drops what is past its retention, now and then. A change finds its place without. */
export function upkeep(link: Link, log: (event: WorkerEvent) => void): () => Promise<void> {
  let doneAt = -Infinity;
  return async () => {
    if (performance.now() - doneAt < INTERVAL) return;
    doneAt = performance.now();
    try {
      await maintain(link.destination as unknown as PostgresLike, { schema: link.destinationSchema });
    } catch (error) {
      const code = codeOf(error);
      if (isTransient(code)) throw error;
      log({ kind: "maintenance-failed", code });
    }
  };
}
