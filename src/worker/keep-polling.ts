import { FIRST_LIMIT, GROWTH, pollRound, ROUND_LIMIT } from "./round.ts";
import { pause } from "./retry.ts";
import type { Work } from "./work.ts";

export interface KeepPollingOptions {
  /** Whether to end where a stream may take over. */
  readonly untilNear: boolean;
  /** When to end even so, by `performance.now()`. */
  readonly until: number;
}

/** Round after round, and one at least; ends at the goal, where a stream may take over, or at a time. */
export async function keepPolling(
  work: Work,
  { untilNear, until }: KeepPollingOptions,
): Promise<"done" | "near"> {
  const { link, options, signal, goal, tell, log, everySecond } = work;
  const { pollInterval = 1000 } = options;
  let interval = 100;
  let limit = FIRST_LIMIT;
  let isSaid = false;
  while (!signal.aborted) {
    const start = performance.now();
    link.turn?.();
    await everySecond();
    const result = await pollRound(link, limit);
    tell(result);
    if (goal !== undefined && !result.isMore && result.consumed >= goal) return "done";
    if (result.isMore) {
      if (!isSaid && untilNear) log({ kind: "reading", mode: "bulk", reason: "it is far behind" });
      isSaid = true;
      limit = Math.min(GROWTH * limit, ROUND_LIMIT);
      continue;
    }
    if (untilNear || start >= until) return "near";
    // A peek reads from where the oldest open transaction began: where that takes long, it is done more rarely.
    const took = performance.now() - start;
    interval = result.written > 0 ? 50 : Math.min(pollInterval, interval * 1.5);
    await pause(Math.max(interval, Math.min(2 * took, 10_000)), signal);
  }
  return "done";
}
