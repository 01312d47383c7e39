import { SQLSTATE } from "../database/sqlstate.ts";
import { openLink } from "./link.ts";
import { codeOf } from "./retry.ts";
import { FIRST_LIMIT, GROWTH, isHeld, pollRound } from "./round.ts";
import { lacksRights, type WorkerOptions } from "./run-worker.ts";
import { LostMeanwhile, slotState } from "./slot-state.ts";
import { upkeep } from "./upkeep.ts";

/** Options of {@linkcode poll}. */
export interface PollOptions extends
  Pick<
    WorkerOptions,
    "source" | "destination" | "schema" | "slot" | "acceptBemiMessages" | "recreateSlot" | "tracer" | "log"
  > {
  /**
   * Messages of the Write-Ahead Log, about as many as changes, after which it ends; to be exceeded by no more than the
   * last transaction.
   * @default 100000
   */
  readonly limit?: number | undefined;
  /** Ends it after the round that is under way. */
  readonly signal?: AbortSignal | undefined;
}

/** What one poll did. */
export interface PollResult {
  /** Changes that went into the log. */
  readonly written: number;
  /** Changes that the log refused, which are kept apart. */
  readonly setAside: number;
  /** Whether all that was committed at the start is in the log. */
  readonly isCaughtUp: boolean;
  /** Whether another call, or a worker, was at it, which is no failure: it does this one's work. */
  readonly isBusy: boolean;
}

/** Milliseconds to wait for another call's transaction: it does this one's work. */
const PATIENCE = 100;

/** Messages of one round: what is written is durable after each. */
const ROUND = 20_000;

/**
 * From the Write-Ahead Log to the log of changes, once: what is committed now, or as much of it as the limit allows.
 * For schedules, where nothing can run all the time: a cron of Cloudflare Workers, Deno or Vercel. Plain SQL, on
 * connections of its own, which are closed in the end.
 *
 * @throws {BemiError} `schema_missing`, `wal_unavailable`, `gap`, `privilege_missing`; and the driver's errors
 * @example
 * ```ts
 * import { poll } from "@bemi/core/worker";
 * const { written, isCaughtUp } = await poll({
 *   source: "postgres://localhost/app",
 *   signal: AbortSignal.timeout(20_000),
 * });
 * ```
 */
export async function poll(options: PollOptions): Promise<PollResult> {
  const { limit = 100_000, log = () => {}, signal } = options;
  let written = 0;
  let setAside = 0;
  const result = (isCaughtUp: boolean, isBusy = false): PollResult => ({
    written,
    setAside,
    isCaughtUp,
    isBusy,
  });
  try {
    await using link = await openLink({ ...options, patience: PATIENCE });
    await link.heartbeat.beat();
    const { flushed: goal } = await slotState(link.source);
    let left = limit;
    for (let size = FIRST_LIMIT; left > 0 && !signal?.aborted; size = Math.min(GROWTH * size, ROUND)) {
      const round = await pollRound(link, Math.min(left, size));
      written += round.written;
      setAside += round.setAside;
      left -= size;
      if (round.isMore || round.consumed < goal) continue;
      // A change finds its place without: it is not worth failing for.
      await upkeep(link, log)().catch((error: unknown) =>
        log({ kind: "maintenance-failed", code: codeOf(error) })
      );
      return result(true);
    }
    return result(false);
  } catch (error) {
    const code = codeOf(error);
    if (isHeld(error)) return result(false, true);
    if (error instanceof LostMeanwhile) return result(false);
    if (code === SQLSTATE.insufficientPrivilege) throw lacksRights(error);
    throw error;
  }
}
