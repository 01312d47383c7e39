import { SQLSTATE } from "../database/sqlstate.ts";
import { BemiError } from "../errors.ts";
import { decode, type Lsn, type PgoutputMessage, type RawMessage } from "./decode.ts";
import { type Heartbeat, HEARTBEAT_PREFIX } from "./heartbeat.ts";
import { isNotice } from "./message.ts";
import { readSeal, type Source } from "./source.ts";
import { type Change, stitcher } from "./stitch.ts";
import type { Seal } from "./table.ts";
import { readTableHistory, type TableHistory } from "./table-history.ts";
import type { TypeCatalog } from "./types.ts";
import type { Writer } from "./write.ts";

/** Takes the messages of one decoding session, however they come, and passes their changes to a writer. */
export interface Intake {
  consume(messages: readonly RawMessage[], writer: Writer): Promise<void>;
  /** Takes what holds nothing to write: beginnings and ends of transactions, heartbeats, messages of others. */
  consumeIdle(messages: readonly RawMessage[]): Promise<void>;
  /** Whether the end of a transaction is still to come. */
  readonly isInTransaction: boolean;
  /** Of the last transaction that came to its end: 0 before the first. */
  readonly commitLsn: Lsn;
  readonly endLsn: Lsn;
  /** When it was committed, in milliseconds since 1970. */
  readonly committedAt: number;
  /** How many messages there were. */
  readonly messages: number;
  /** How many transactions came to their end that held changes to be written. */
  readonly transactions: number;
}

export interface IntakeOptions {
  readonly source: Source;
  readonly types: TypeCatalog;
  readonly acceptsBareContexts: boolean;
  /** Is told of each batch of messages, as a sign of life. */
  readonly turn?: (() => void) | undefined;
  readonly heartbeat: Pick<Heartbeat, "arrived">;
}

/** Whether there is nothing in it for the log. */
export function isIdle(messages: readonly RawMessage[]): boolean {
  return messages.every(([, data]) => {
    const kind = data[0];
    if (kind === BEGIN || kind === COMMIT || kind === ORIGIN) return true;
    if (kind !== MESSAGE) return false;
    const message = decode(data);
    return message.kind === "message" && message.prefix !== "_bemi";
  });
}

/** How many of them come before the first transaction's end, that included; 0 where none ends. */
export function untilCommit(messages: readonly RawMessage[]): number {
  return messages.findIndex(([, data]) => data[0] === COMMIT) + 1;
}

export function openIntake(options: IntakeOptions): Intake {
  const { source, types, acceptsBareContexts, turn, heartbeat } = options;
  let tables: TableHistory | undefined;
  let seal: Seal | undefined;
  const stitch = stitcher({
    table: (oid, lsn) => tables?.at(oid, lsn),
    type: (oid, known) => types.get(oid, known?.types),
    get seal() {
      return seal;
    },
    acceptsBareContexts,
  });
  let isInTransaction = false;
  let beginLsn = 0n;
  let commitLsn = 0n;
  let endLsn = 0n;
  let committedAt = 0;
  let count = 0;
  let transactions = 0;
  let hasChanges = false;
  const relations = new Set<number>();
  const typesInUse = new Set<number>();

  let xid: number | undefined;
  // What is known was asked for when this transaction had ended, and every one below the horizon.
  let asked: number | undefined;
  let horizon: number | undefined;
  // At their place in the WAL: what was written before is read by what was true then. What is behind, as while it
  // catches up, and after TRUNCATE, which has PostgreSQL describe a relation again, is known without being asked anew.
  const refresh = async (): Promise<void> => {
    if (xid !== undefined && horizon !== undefined && (xid === asked || isBefore(xid, horizon))) {
      return stitch.refresh();
    }
    horizon = await oldestTransaction(source, xid);
    asked = xid;
    types.forget();
    await types.load([...typesInUse]);
    tables = await readTableHistory(source);
    seal = await readSeal(source);
    stitch.refresh();
  };
  // PostgreSQL describes a relation once, and again when it was altered.
  const isChangeOfSchema = (message: PgoutputMessage): boolean => {
    if (message.kind === "relation") return relations.has(message.oid) || !tables?.has(message.oid);
    return message.kind === "message" && message.prefix === "_bemi" && isNotice(message.content);
  };

  const consume = async (messages: readonly RawMessage[], writer: Writer): Promise<void> => {
    // What is not above it is in the log already, from before a crash.
    let isNew = beginLsn > writer.watermark;
    const emit = (change: Change): void => {
      if (!isNew) return;
      writer.write(change);
      hasChanges = true;
    };
    turn?.();
    // A round that finds nothing for the log asks nothing.
    if (!tables && writer !== NOBODY) await refresh();
    for (const [lsn, data] of messages) {
      count++;
      const message = decode(data);
      if (isChangeOfSchema(message)) await refresh();
      switch (message.kind) {
        case "begin":
          isInTransaction = true;
          xid = message.xid;
          committedAt = Number(message.committedAt / 1000n) + EPOCH;
          beginLsn = message.commitLsn;
          isNew = beginLsn > writer.watermark;
          break;
        case "relation":
          relations.add(message.oid);
          for (const { type } of message.columns) typesInUse.add(type);
          await types.load([...typesInUse]);
          break;
        case "message":
          if (message.prefix === HEARTBEAT_PREFIX) heartbeat.arrived(message.content);
          break;
        case "commit":
          isInTransaction = false;
          if (message.commitLsn > commitLsn) commitLsn = message.commitLsn;
          endLsn = message.endLsn;
      }
      stitch.push(message, lsn, emit);
      if (message.kind === "commit" && hasChanges) {
        transactions++;
        hasChanges = false;
      }
    }
  };
  return {
    consume,
    consumeIdle: (messages) => consume(messages, NOBODY),
    get isInTransaction() {
      return isInTransaction;
    },
    get commitLsn() {
      return commitLsn;
    },
    get endLsn() {
      return endLsn;
    },
    get committedAt() {
      return committedAt;
    },
    get messages() {
      return count;
    },
    get transactions() {
      return transactions;
    },
  };
}

/**
 * Below its number, of 32 bits, no transaction runs any more; nor does `ended`, whose changes others can see: one is
 * decoded as soon as it is flushed, a moment before that, and long before where it waits for a synchronous standby.
 *
 * @throws as where a lock is held, which is tried again
 */
async function oldestTransaction({ db }: Source, ended: number | undefined): Promise<number> {
  for (let pause = 1; pause < VISIBLE_WITHIN; pause *= 2) {
    const [row] = await db.query<{ snapshot: string }>(
      "select pg_catalog.pg_current_snapshot()::text as snapshot",
    );
    // xmin:xmax:xip_list (PostgreSQL documentation, 9.27.7), of which each number has 64 bits.
    const [xmin = 0, xmax = 0, ...running] = (row?.snapshot ?? "").split(/[:,]/)
      .map((number) => Number(BigInt.asUintN(32, BigInt(number))));
    if (ended === undefined || isBefore(ended, xmax) && !running.includes(ended)) return xmin;
    await new Promise((done) => setTimeout(done, pause));
  }
  throw Object.assign(new Error("A transaction that was flushed does not end"), {
    code: SQLSTATE.lockNotAvailable,
  });
}

/** Of two transactions' numbers, which begin again after 2³² (PostgreSQL documentation, 25.1.5). */
function isBefore(xid: number, other: number): boolean {
  return ((xid - other) | 0) < 0;
}

/** How long to wait for a transaction to be seen, in milliseconds, is less than twice this. */
const VISIBLE_WITHIN = 4096;

/** 2000-01-01, where PostgreSQL's clock begins, in milliseconds since 1970. */
const EPOCH = 946_684_800_000;

const BEGIN = 0x42;
const COMMIT = 0x43;
const ORIGIN = 0x4f;
const MESSAGE = 0x4d;

const NOBODY: Writer = {
  watermark: 0n,
  endLsn: 0n,
  written: 0,
  write: () => {
    throw new BemiError("decode_failed", "A change came where none was expected");
  },
  flush: () => Promise.resolve(),
};
