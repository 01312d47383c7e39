import type { Buffer } from "node:buffer";
import { SQLSTATE, sqlstateOf } from "../database/sqlstate.ts";
import type { Database } from "../database/port.ts";
import { type Lsn, parseLsn } from "./decode.ts";
import type { WorkerEvent } from "./run-worker.ts";

/** The prefix of its messages in the WAL. */
export const HEARTBEAT_PREFIX = "_bemi_heartbeat";

/**
 * A message of the worker's own that goes through the WAL now and then: the slot moves while nothing else is written,
 * and how long it took says how far behind the worker is, whatever there is to read.
 */
export interface Heartbeat {
  /** Sends one, if it is time: by the clock, so that nothing is ever written in answer to one's own WAL. */
  beat(): Promise<void>;
  /** Is shown each message of the prefix; those of other workers say nothing. */
  arrived(content: Buffer): void;
  /** Is told up to where the slot is read. One before that which never arrived went to another worker: it is given up. */
  confirmed(lsn: Lsn): void;
  /** Milliseconds that the last one took, once for each that came back. */
  take(): number | undefined;
  /** Whether one came back that nobody has taken. */
  readonly isBack: boolean;
}

export interface HeartbeatOptions {
  readonly db: Database;
  /** Milliseconds between two; 0 for none. */
  readonly interval: number;
  readonly log: (event: WorkerEvent) => void;
}

export function heartbeat({ db, interval, log }: HeartbeatOptions): Heartbeat {
  const name = crypto.randomUUID();
  const isOn = interval > 0;
  let isRefused = false;
  let count = 0;
  let sentAt = -Infinity;
  let awaited: string | undefined;
  let endsBefore: Lsn | undefined;
  let back: number | undefined;
  return {
    beat: async () => {
      // One that is still on its way says how long it took when it comes.
      if (!isOn || isRefused || awaited !== undefined || performance.now() - sentAt < interval) return;
      sentAt = performance.now();
      awaited = `${name} ${++count}`;
      endsBefore = undefined;
      try {
        // Flushed here, also where nothing else is (synchronous_commit = off), and no standby is waited for.
        await db.query(
          `select set_config('synchronous_commit', 'local', true), pg_logical_emit_message(true, $1::text, $2::text)`,
          [HEARTBEAT_PREFIX, awaited],
        );
        const [row] = await db.query<{ lsn: string }>("select pg_current_wal_insert_lsn()::text as lsn");
        endsBefore = parseLsn(row?.lsn ?? "0/0");
      } catch (error) {
        // None that has to come back, so that the next one is sent.
        awaited = undefined;
        const code = sqlstateOf(error);
        if (code !== SQLSTATE.insufficientPrivilege && code !== SQLSTATE.readOnlyTransaction) throw error;
        isRefused = true;
        log({ kind: "heartbeat-refused", code });
      }
    },
    arrived: (content) => {
      if (awaited === undefined || content.toString("utf8") !== awaited) return;
      awaited = undefined;
      back = Math.round(performance.now() - sentAt);
      log({ kind: "heartbeat", roundTrip: back });
    },
    confirmed: (lsn) => {
      if (endsBefore !== undefined && lsn >= endsBefore) awaited = undefined;
    },
    take: () => {
      const taken = back;
      back = undefined;
      return taken;
    },
    get isBack() {
      return back !== undefined;
    },
  };
}
