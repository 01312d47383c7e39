import { SQLSTATE, sqlstateOf } from "../database/sqlstate.ts";
import type { Lsn, RawMessage } from "./decode.ts";
import { type Intake, isIdle, openIntake } from "./intake.ts";
import type { Link } from "./link.ts";
import { peek } from "./peek.ts";
import { LostMeanwhile, slotState } from "./slot-state.ts";
import { advance } from "./source.ts";
import { traced } from "./trace.ts";
import { inWriteTransaction, type Progress, type WriteOptions, type Writer } from "./write.ts";

export interface RoundResult {
  readonly written: number;
  readonly setAside: number;
  /** Transactions of the source that held what was written. */
  readonly transactions: number;
  /** Up to where everything is in the log. */
  readonly consumed: Lsn;
  /** Bytes of WAL behind that. */
  readonly lag: bigint;
  /** When the last of it was committed, in milliseconds since 1970. */
  readonly committedAt: number;
  /** Whether the limit ended it, and more is waiting. */
  readonly isMore: boolean;
}

/** Messages of a first round, to be multiplied by `GROWTH`: who is killed again and again gets on all the same. */
export const FIRST_LIMIT = 2000;

export const GROWTH = 4;

/** Messages that a round takes at most, or little more. */
export const ROUND_LIMIT = 100_000;

const NOTHING = { written: 0, setAside: 0, transactions: 0, lag: 0n, committedAt: 0, isMore: false } as const;

/** WAL without a change of ours that is worth a checkpoint: its own record is some hundred bytes. */
export const IDLE_BYTES: bigint = 64n * 1024n;

/**
 * One round: peek what is committed, write it with its checkpoint in one transaction, and only then let go of the WAL.
 * A crash at any point repeats a round, and what the checkpoint covers is not written twice.
 *
 * @param limit messages, to be exceeded by no more than the last transaction
 */
export async function pollRound(link: Link, limit: number): Promise<RoundResult> {
  try {
    return await attempt(link, limit, false);
  } catch (error) {
    if (!isDataError(error)) throw error;
    return await attempt(link, limit, true);
  }
}

/** Writes into the log in one transaction, durable when it returns. */
export function write(
  link: Link,
  isCareful: boolean,
  fn: (writer: Writer) => Promise<Progress | undefined>,
): Promise<{ written: number; setAside: number }> {
  const { source, destination, destinationSchema } = link;
  const options: WriteOptions = {
    schema: destinationSchema,
    slot: source.slot,
    publicationOid: source.publicationOid,
    origin: { ...link.origin, queuedAt: new Date().toISOString() },
    isCareful,
    heartbeat: link.heartbeat.take(),
    patience: link.patience,
  };
  return traced(link.tracer, "bemi.write", async (span) => {
    const counts = await inWriteTransaction(destination, options, fn);
    span?.setAttributes({
      "db.system.name": "postgresql",
      "bemi.slot": source.slot,
      "bemi.written": counts.written,
      "bemi.set_aside": counts.setAside,
    });
    return counts;
  });
}

async function attempt(link: Link, limit: number, isCareful: boolean): Promise<RoundResult> {
  const { source, reader } = link;
  const { slot, publication } = source;
  const { flushed, confirmed } = await slotState(source);
  if (flushed <= confirmed) return { ...NOTHING, consumed: flushed };
  const intake = openIntake(link);
  const batches = peek(reader, { slot, publication, upTo: flushed, limit });
  const isMore = (): boolean => intake.messages >= limit;
  // Ended by the limit, not by the LSN: what follows was not looked at.
  const target = (): Lsn => isMore() || intake.endLsn > flushed ? intake.endLsn : flushed;
  let counts = { written: 0, setAside: 0 };
  const isWorthIt = await traced(link.tracer, "bemi.peek", async (span) => {
    try {
      const first = await nextToWrite(batches, intake);
      if (!first && !link.heartbeat.isBack && !isMore() && target() - confirmed < IDLE_BYTES) return false;
      counts = await write(link, isCareful, async (writer) => {
        // Between two rounds nobody holds the slot: another program may have read it, and what it read is gone.
        if (confirmed > writer.endLsn) throw new LostMeanwhile();
        if (first) await takeIn(first, batches, intake, writer);
        return { commitLsn: intake.commitLsn, endLsn: target() };
      });
      return true;
    } finally {
      await batches.return(undefined);
      span?.setAttributes({ "bemi.slot": slot, "bemi.messages": intake.messages });
    }
  });
  // The publication may have been dropped meanwhile, and PostgreSQL 18 would have said nothing.
  const after = await slotState(source);
  if (isWorthIt && target() > after.confirmed) await advance(source, target());
  return {
    ...counts,
    transactions: intake.transactions,
    consumed: isMore() ? target() : flushed,
    committedAt: intake.committedAt,
    lag: after.flushed > target() && intake.messages > 0 ? after.flushed - target() : 0n,
    isMore: isMore(),
  };
}

/** The first that holds something for the log, with what came before it taken in. */
async function nextToWrite(
  batches: AsyncGenerator<RawMessage[]>,
  intake: Intake,
): Promise<RawMessage[] | undefined> {
  for (;;) {
    const { value, done } = await batches.next();
    if (done) return undefined;
    if (!isIdle(value)) return value;
    await intake.consumeIdle(value);
  }
}

async function takeIn(
  first: RawMessage[],
  rest: AsyncIterable<RawMessage[]>,
  intake: Intake,
  writer: Writer,
): Promise<void> {
  await intake.consume(first, writer);
  for await (const batch of rest) {
    await intake.consume(batch, writer);
    await writer.flush();
  }
}

/**
 * Whether it is the log that says no, rather than the connection, the server or a lock. A database in SQL_ASCII has no
 * conversion for an escape in JSON, which is a feature that is not supported.
 */
export function isDataError(error: unknown): boolean {
  const state = sqlstateOf(error);
  return state !== undefined &&
    (/^(?:22|23|54)/.test(state) || state === SQLSTATE.featureNotSupported);
}

/** Whether another worker, or a lock, stands in the way: waiting helps. */
export function isHeld(error: unknown): boolean {
  const state = sqlstateOf(error);
  return state === SQLSTATE.objectInUse || state === SQLSTATE.lockNotAvailable;
}
