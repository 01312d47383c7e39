import { SQLSTATE, sqlstateOf } from "../database/sqlstate.ts";
import type { Lsn } from "./decode.ts";
import type { Origin } from "./encode.ts";
import { type IntakeOptions, openIntake } from "./intake.ts";
import { peek } from "./peek.ts";
import { advance, slotState } from "./source.ts";
import type { WorkerSql } from "./sql.ts";
import { traced, type TracerLike } from "./trace.ts";
import { inWriteTransaction, type Progress, type WriteOptions, type Writer } from "./write.ts";

/** What a worker has while its connections live. */
export interface Link extends IntakeOptions {
  /** A connection to the source for COPY alone. */
  readonly reader: WorkerSql;
  readonly destination: WorkerSql;
  readonly destinationSchema: string;
  readonly origin: Omit<Origin, "queuedAt">;
  readonly tracer?: TracerLike | undefined;
}

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

const ROUND_LIMIT = 100_000;

const NOTHING = { written: 0, setAside: 0, transactions: 0, lag: 0n, committedAt: 0, isMore: false } as const;

/** WAL without a change of ours that is worth a checkpoint: its own record is some hundred bytes. */
export const IDLE_BYTES: bigint = 64n * 1024n;

/**
 * One round: peek what is committed, write it with its checkpoint in one transaction, and only then let go of the WAL.
 * A crash at any point repeats a round, and what the checkpoint covers is not written twice.
 *
 * @param limit messages, to be exceeded by no more than the last transaction
 */
export async function pollRound(link: Link, limit: number = ROUND_LIMIT): Promise<RoundResult> {
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
  if (flushed <= confirmed) {
    return { ...NOTHING, consumed: flushed };
  }
  const intake = await openIntake(link);
  let target = flushed;
  const counts = await write(link, isCareful, async (writer) => {
    await traced(link.tracer, "bemi.peek", async (span) => {
      for await (const batch of peek(reader, { slot, publication, upTo: flushed, limit })) {
        await intake.consume(batch, writer);
        await writer.flush();
      }
      span?.setAttributes({ "bemi.slot": slot, "bemi.messages": intake.messages });
    });
    // Ended by the limit, not by the LSN: what follows was not looked at.
    if (intake.messages >= limit || intake.endLsn > flushed) target = intake.endLsn;
    const isWorthIt = writer.written > 0 || target - writer.endLsn >= IDLE_BYTES ||
      intake.messages >= limit;
    if (!isWorthIt) target = writer.endLsn;
    return isWorthIt ? { commitLsn: intake.commitLsn, endLsn: target } : undefined;
  });
  // The publication may have been dropped meanwhile, and PostgreSQL 18 would have said nothing.
  const after = await slotState(source);
  if (target > after.confirmed) await advance(source, target);
  const isMore = intake.messages >= limit;
  return {
    ...counts,
    transactions: intake.transactions,
    consumed: isMore ? target : flushed,
    committedAt: intake.committedAt,
    lag: after.flushed > target && intake.messages > 0 ? after.flushed - target : 0n,
    isMore,
  };
}

/** Whether it is the log that says no, rather than the connection, the server or a lock. */
export function isDataError(error: unknown): boolean {
  const state = sqlstateOf(error);
  return state !== undefined && (/^(?:22|23)/.test(state) || state === SQLSTATE.programLimitExceeded);
}
