import { openLink } from "./link.ts";
import { keepPolling } from "./keep-polling.ts";
import { pause } from "./retry.ts";
import { isDataError, isHeld } from "./round.ts";
import type { SessionOptions } from "./session-options.ts";
import { slotState } from "./slot-state.ts";
import { slotWatch } from "./slot-watch.ts";
import { standBy } from "./stand-by.ts";
import { StreamRefused } from "./stream-refused.ts";
import { streamSlot } from "./stream-slot.ts";
import { teller } from "./teller.ts";
import { upkeep } from "./upkeep.ts";
import type { Work } from "./work.ts";

/** How long to poll where streaming was refused before it is tried again, in milliseconds. */
const STREAM_RETRY = 300_000;

/**
 * Works until told to stop, done, or an error; connections live as long. Stands by while another worker has the slot,
 * then reads in bulk what has come together, and goes over to the stream, or to polling where that is refused.
 */
export async function session(
  options: SessionOptions,
  signal: AbortSignal,
  report: (written: number) => void,
): Promise<void> {
  const { once = false, mode = "auto", log = () => {} } = options;
  await using link = await openLink(options);
  const tell = teller(report, log);
  const jobs = [upkeep(link, log), slotWatch(link, log), tell.late];
  // With it, everything that is committed is flushed, and so below the goal.
  await link.heartbeat.beat();
  const work: Work = {
    link,
    options,
    signal,
    goal: once ? (await slotState(link.source)).flushed : undefined,
    tell,
    log,
    everySecond: async () => {
      for (const job of jobs) await job();
    },
  };
  // A run that ends reads in bulk: a stream would only come after it.
  const streams = mode === "stream" || mode === "auto" && !once;
  if (!streams) {
    log({ kind: "reading", mode: "poll", reason: once ? "it ends when it has caught up" : "it was told to" });
  }
  let retryAt = streams ? -Infinity : Infinity;
  // On a timer of their own: heartbeats tell how far behind it is just when writing takes long. What breaks the
  // connection is met by whoever works with it.
  const beating = setInterval(() => void link.heartbeat.beat().catch(() => {}), 1000);
  const rest = (): void => clearInterval(beating);
  // Told to end, it needs none; and one that is given up must not go on with them.
  signal.addEventListener("abort", rest, { once: true });
  try {
    while (!signal.aborted) {
      if (await standBy(work) === "done") return;
      try {
        const untilNear = performance.now() >= retryAt;
        if (await keepPolling(work, { untilNear, until: retryAt }) === "done") return;
        const outcome = await streamSlot(work).catch((error: unknown) => {
          // What the log refuses is read again, one by one, which only a slot can do that nobody streams.
          if (!isDataError(error)) throw error;
        });
        if (outcome === "done") return;
      } catch (error) {
        // Another worker was faster.
        if (isHeld(error)) await pause(500, signal);
        else if (error instanceof StreamRefused) {
          if (mode === "stream") throw error.explained();
          retryAt = performance.now() + STREAM_RETRY;
          log({ kind: "reading", mode: "poll", reason: `streaming was refused (${error.code})` });
        } else throw error;
      }
    }
  } finally {
    signal.removeEventListener("abort", rest);
    rest();
    tell.flush();
  }
}
