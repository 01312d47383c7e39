import { SQLSTATE } from "../database/sqlstate.ts";
import { follow } from "./follow.ts";
import { codeOf, isTransient } from "./retry.ts";
import { statusInterval } from "./source.ts";
import { waitUntilFree } from "./stand-by.ts";
import { openStream, type WalStream } from "./stream.ts";
import { StreamRefused } from "./stream-refused.ts";
import type { Work } from "./work.ts";

/** Bytes of WAL behind which it is read in bulk rather than by stream. */
const FAR_BEHIND = 256 * 1024 * 1024;

/**
 * Streams the slot until the worker is told to stop, has reached its goal, or is far behind.
 *
 * @throws {StreamRefused} where the server, or what stands in front of it, does not stream to this worker
 */
export async function streamSlot(work: Work): Promise<"done" | "far-behind"> {
  const { link, options, signal, goal, tell, log, everySecond } = work;
  const { slot, publication } = link.source;
  const interval = await statusInterval(link.source);
  let wal: WalStream;
  try {
    wal = await openStream(options.source, {
      slot,
      publication,
      statusInterval: interval,
      signal,
      sockets: options.sockets,
    });
  } catch (error) {
    const code = codeOf(error);
    // Taken by another worker, gone since it was looked at: the next session sees to it.
    const isElsewhere = code === SQLSTATE.objectInUse || code === SQLSTATE.undefinedObject ||
      isTransient(code) && !/^(?:08P01|53)/.test(code);
    throw isElsewhere ? error : new StreamRefused(code, error);
  }
  try {
    log({ kind: "reading", mode: "stream", reason: "it is near the end of the Write-Ahead Log" });
    const farBehind = BigInt(options.bulkAbove ?? FAR_BEHIND);
    const outcome = await follow(link, wal, { signal, goal, report: tell, everySecond, farBehind });
    if (outcome === "far-behind") log({ kind: "reading", mode: "bulk", reason: "it is far behind" });
    return outcome;
  } finally {
    await wal[Symbol.asyncDispose]();
    await waitUntilFree(link, signal).catch(() => {});
  }
}
