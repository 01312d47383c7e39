import type { Lsn, RawMessage } from "./decode.ts";
import { isIdle, openIntake, untilCommit } from "./intake.ts";
import type { Link } from "./link.ts";
import { IDLE_BYTES, type RoundResult, write } from "./round.ts";
import { slotState } from "./slot-state.ts";
import type { WalStream } from "./stream.ts";

export interface FollowOptions {
  readonly signal: AbortSignal;
  /** Ends when everything before it is in the log. */
  readonly goal: Lsn | undefined;
  /** Is told of each transaction of the destination that held changes. */
  readonly everySecond: () => Promise<void>;
  readonly report: (written: Omit<RoundResult, "isMore">) => void;
  /** Bytes of WAL behind which reading in bulk is faster. */
  readonly farBehind: bigint;
}

/** Changes that one transaction of the destination may hold, to be exceeded by no more than the last of the source. */
const WRITE_LIMIT = 50_000;

/** How long the log waits for what has come, while more and more comes, in milliseconds. */
const WRITE_INTERVAL = 500;

/** How often the slot is looked at, and let go of what is in the log, in milliseconds. */
const CHECK_INTERVAL = 1000;

/**
 * Writes what a stream brings as it comes: what has come together while one transaction was written makes up the next.
 * Returns when it was told to stop, has reached its goal, or is so far behind that reading in bulk is faster.
 */
export async function follow(
  link: Link,
  stream: WalStream,
  options: FollowOptions,
): Promise<"done" | "far-behind"> {
  const { signal, goal, report, everySecond, farBehind } = options;
  const intake = openIntake(link);
  let durable = 0n;
  let checkedAt = performance.now();
  let isFarBehind = false;
  // Decoding says nothing where the publication is gone (PostgreSQL 18): looked at before the slot lets go of anything.
  const check = async (): Promise<void> => {
    if (performance.now() - checkedAt < CHECK_INTERVAL) return;
    checkedAt = performance.now();
    const { flushed } = await slotState(link.source);
    stream.acknowledge(durable);
    await everySecond();
    isFarBehind = durable > 0n && flushed - durable > farBehind;
  };

  // Of a batch in the middle of which the log's transaction ended.
  let rest: readonly RawMessage[] = [];
  while (!signal.aborted) {
    link.turn?.();
    let batch: readonly RawMessage[] = rest.length > 0 ? rest : await stream.next(CHECK_INTERVAL);
    rest = [];
    if (isIdle(batch)) {
      await intake.consumeIdle(batch);
      // All that the server had is in the log: worth a checkpoint now and then, so that the slot can move.
      const idleLsn = intake.isInTransaction || stream.isWaiting ? 0n : max(intake.endLsn, stream.sentLsn);
      if (
        idleLsn > durable && (link.heartbeat.isBack || idleLsn - durable >= IDLE_BYTES ||
          goal !== undefined && idleLsn >= goal)
      ) {
        await write(link, false, () => Promise.resolve({ commitLsn: intake.commitLsn, endLsn: idleLsn }));
        durable = idleLsn;
      }
    } else {
      const before = intake.transactions;
      const counts = await write(link, false, async (writer) => {
        const due = performance.now() + WRITE_INTERVAL;
        for (;;) {
          // Batches may well end in a transaction each: past its time, it ends in the middle of one.
          const isDue = writer.written >= WRITE_LIMIT || performance.now() >= due;
          const count = isDue && untilCommit(batch) || batch.length;
          rest = batch.slice(count);
          await intake.consume(batch.slice(0, count), writer);
          await writer.flush();
          if (!intake.isInTransaction && (isDue || !stream.isWaiting)) break;
          // The rest of a transaction under way comes for sure: unlike at its start, stopping has to wait.
          batch = await stream.next(CHECK_INTERVAL);
        }
        return { commitLsn: intake.commitLsn, endLsn: intake.endLsn };
      });
      durable = intake.endLsn;
      if (counts.written + counts.setAside > 0) {
        const lag = stream.sentLsn > durable ? stream.sentLsn - durable : 0n;
        const transactions = intake.transactions - before;
        report({ ...counts, transactions, consumed: durable, lag, committedAt: intake.committedAt });
      }
    }
    if (goal !== undefined && durable >= goal) break;
    await check();
    if (isFarBehind) return "far-behind";
  }
  // Only what was looked after is let go of: the rest is read again, and found to be in the log.
  await slotState(link.source);
  stream.acknowledge(durable);
  return "done";
}

function max(a: Lsn, b: Lsn): Lsn {
  return a > b ? a : b;
}
