import { formatLsn } from "./decode.ts";
import type { RoundResult } from "./round.ts";
import type { WorkerEvent } from "./run-worker.ts";

export interface Teller {
  (result: Omit<RoundResult, "isMore">): void;
  /** Says what has not been said. */
  flush(): void;
  /** The same, where that was due. */
  late(): void;
}

/** Says what was written, at most once a second, since a stream may write a thousand times. */
export function teller(report: (written: number) => void, log: (event: WorkerEvent) => void): Teller {
  let written = 0;
  let setAside = 0;
  let transactions = 0;
  let last: Omit<RoundResult, "isMore"> | undefined;
  let saidAt = -Infinity;
  let delay = 0;
  const flush = (): void => {
    if (!last || written + setAside === 0) return;
    log({
      kind: "written",
      written,
      setAside,
      transactions,
      lsn: formatLsn(last.consumed),
      lag: last.lag,
      delay,
    });
    written = setAside = transactions = 0;
    saidAt = performance.now();
  };
  const late = (): void => {
    if (performance.now() - saidAt >= 1000) flush();
  };
  return Object.assign((result: Omit<RoundResult, "isMore">) => {
    report(result.written);
    written += result.written;
    setAside += result.setAside;
    transactions += result.transactions;
    last = result;
    if (result.written + result.setAside > 0) delay = Math.max(0, Date.now() - result.committedAt);
    late();
  }, { flush, late });
}
