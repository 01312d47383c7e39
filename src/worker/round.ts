import { SQLSTATE, sqlstateOf } from "../database/sqlstate.ts";
import { decode, type Lsn } from "./decode.ts";
import type { Origin } from "./encode.ts";
import { peek } from "./peek.ts";
import { advance, readSeal, slotState, type Source, tableFacts } from "./source.ts";
import type { WorkerSql } from "./sql.ts";
import { type Change, stitcher } from "./stitch.ts";
import type { TypeCatalog } from "./types.ts";
import { inWriteTransaction } from "./write.ts";

export interface RoundOptions {
  readonly source: Source;
  /** A connection to the source for COPY alone. */
  readonly reader: WorkerSql;
  readonly destination: WorkerSql;
  readonly destinationSchema: string;
  readonly origin: Omit<Origin, "queuedAt">;
  readonly types: TypeCatalog;
}

export interface RoundResult {
  readonly written: number;
  readonly setAside: number;
  /** Up to where everything is in the log. */
  readonly consumed: Lsn;
  /** Bytes of WAL behind that. */
  readonly lag: bigint;
  /** Whether the limit ended it, and more is waiting. */
  readonly isMore: boolean;
}

/** Messages of one round, to be exceeded by no more than the last transaction. */
const ROUND_LIMIT = 100_000;

/** WAL without a change of ours that is worth a checkpoint: its own record is some hundred bytes. */
const IDLE_BYTES = 64n * 1024n;

/**
 * One round: peek what is committed, write it with its checkpoint in one transaction, and only then let go of the WAL.
 * A crash at any point repeats a round, and what the checkpoint covers is not written twice.
 */
export async function pollRound(options: RoundOptions): Promise<RoundResult> {
  try {
    return await attempt(options, false);
  } catch (error) {
    if (!isDataError(error)) throw error;
    return await attempt(options, true);
  }
}

async function attempt(options: RoundOptions, isCareful: boolean): Promise<RoundResult> {
  const { source, reader, destination, destinationSchema, types } = options;
  const state = await slotState(source);
  const idle = { written: 0, setAside: 0, consumed: state.flushed, lag: 0n, isMore: false };
  if (state.flushed <= state.confirmed) return idle;
  const facts = await tableFacts(source);
  const stitch = stitcher({ table: (oid) => facts.get(oid), type: types.get, seal: await readSeal(source) });
  const origin = { ...options.origin, queuedAt: new Date().toISOString() };
  let messages = 0;
  let target = state.flushed;
  const counts = await inWriteTransaction(
    destination,
    { schema: destinationSchema, slot: source.slot, origin, isCareful },
    async (writer) => {
      let commitLsn = writer.watermark;
      let endLsn = 0n;
      let isNew = false;
      const emit = (change: Change): void => {
        if (isNew) writer.write(change);
      };
      const options = {
        slot: source.slot,
        publication: source.publication,
        upTo: state.flushed,
        limit: ROUND_LIMIT,
      };
      for await (const batch of peek(reader, options)) {
        for (const [lsn, data] of batch) {
          messages++;
          const message = decode(data);
          if (message.kind === "begin") isNew = message.commitLsn > writer.watermark;
          if (message.kind === "relation") await types.load(message.columns.map((column) => column.type));
          stitch.push(message, lsn, emit);
          if (message.kind === "commit") {
            if (message.commitLsn > commitLsn) commitLsn = message.commitLsn;
            endLsn = message.endLsn;
          }
        }
        await writer.flush();
      }
      // Ended by the limit, not by the LSN: what follows was not looked at.
      target = messages >= ROUND_LIMIT || endLsn > state.flushed ? endLsn : state.flushed;
      const isWorthIt = writer.written > 0 || target - writer.endLsn >= IDLE_BYTES || messages >= ROUND_LIMIT;
      if (!isWorthIt) target = writer.endLsn;
      return isWorthIt ? { commitLsn, endLsn: target } : undefined;
    },
  );
  // The publication may have been dropped meanwhile, and PostgreSQL 18 would have said nothing.
  const after = await slotState(source);
  if (target > after.confirmed) await advance(source, target);
  return {
    ...counts,
    consumed: messages >= ROUND_LIMIT ? target : state.flushed,
    lag: after.flushed > target && messages > 0 ? after.flushed - target : 0n,
    isMore: messages >= ROUND_LIMIT,
  };
}

// What the log says no to, rather than the connection, the server or a lock.
function isDataError(error: unknown): boolean {
  const state = sqlstateOf(error);
  return state !== undefined && (/^(?:22|23)/.test(state) || state === SQLSTATE.programLimitExceeded);
}
