import { SQLSTATE } from "../database/sqlstate.ts";
import { BemiError } from "../errors.ts";
import { codeOf, isTransient, pause } from "./retry.ts";
import { session } from "./session.ts";
import type { SessionOptions } from "./session-options.ts";
import { socketWatch } from "./socket-watch.ts";
import { LostMeanwhile } from "./slot-state.ts";
import type { SpanLike, TracerLike } from "./trace.ts";

/** Options of {@linkcode runWorker}. */
export interface WorkerOptions {
  /** The database that the application writes: a URL, or postgres.js options. */
  readonly source: string | object;
  /**
   * The database that holds the log.
   * @default the source
   */
  readonly destination?: string | object | undefined;
  /**
   * The schema of the installation.
   * @default "bemi"
   */
  readonly schema?: string | undefined;
  /**
   * The replication slot to read.
   * @default the one that `bemi init` made for the database
   */
  readonly slot?: string | undefined;
  /**
   * How the WAL is read: `stream` over a replication connection, as it is committed; `poll` in plain SQL, on every
   * connection; `auto` in bulk while it is far behind, then by stream, and by polling where streaming is refused.
   * @default "auto"
   */
  readonly mode?: "auto" | "stream" | "poll" | undefined;
  /** End when all that was committed at the start is in the log. */
  readonly once?: boolean | undefined;
  /**
   * Polling: the longest pause between two rounds, in milliseconds; under load there is none.
   * @default 1000
   */
  readonly pollInterval?: number | undefined;
  /**
   * Bytes of WAL behind which it is read in bulk rather than by stream.
   * @default 268435456 (256 MB)
   */
  readonly bulkAbove?: number | undefined;
  /**
   * Milliseconds between two heartbeats: messages of the worker's own through the WAL, which let the slot move while
   * nothing else is written, and say how far behind the worker is. 0 for none.
   * @default 10000
   */
  readonly heartbeatInterval?: number | undefined;
  /**
   * Make the slot anew where it is gone or was invalidated, and record as a gap what is lost with it. Without, the
   * worker ends with `gap`.
   * @default false
   */
  readonly recreateSlot?: boolean | undefined;
  /**
   * Whether a row that no message of ours covers takes the context that another Bemi's row trigger put into the WAL
   * before it. Anybody can write such messages, so they never say what only the database knows.
   * @default false
   */
  readonly acceptBemiMessages?: boolean | undefined;
  /** Ends the worker after the round that is under way. */
  readonly signal?: AbortSignal | undefined;
  /** An OpenTelemetry tracer: each write, each peek and each reconnection is a span, without row values. */
  readonly tracer?: TracerLike | undefined;
  /** Is told what happens; never row values. */
  readonly log?: ((event: WorkerEvent) => void) | undefined;
}

/** What a worker tells. */
export type WorkerEvent =
  | { readonly kind: "started"; readonly slot: string; readonly database: string }
  /** How the WAL is read from now on, and why. */
  | { readonly kind: "reading"; readonly mode: "stream" | "poll" | "bulk"; readonly reason: string }
  /** What went into the log since the last time, at most once a second; `lag` is the bytes of WAL behind it. */
  | {
    readonly kind: "written";
    readonly written: number;
    readonly setAside: number;
    /** Transactions that held them. */
    readonly transactions: number;
    readonly lsn: string;
    readonly lag: bigint;
    /** Milliseconds from the last commit to its being in the log. */
    readonly delay: number;
  }
  /** Where the slot stands, every few seconds. */
  | {
    readonly kind: "slot";
    /** All WAL up to here is flushed. */
    readonly flushed: string;
    /** Bytes of WAL behind which the slot is confirmed to have been read. */
    readonly confirmedLag: bigint;
    /** Bytes of WAL that it keeps. */
    readonly retained: bigint;
    /** `reserved`, `extended` or `unreserved`: whether the server still owes it that WAL. */
    readonly walStatus: string;
    /** Bytes of WAL that may still be written before it is lost; absent where nothing limits what the slot keeps. */
    readonly safe: bigint | undefined;
    /** Bytes that the server wrote to its disk while it decoded transactions beyond `logical_decoding_work_mem`. */
    readonly spilledBytes: bigint;
    /** How many transactions that were. */
    readonly spilledTransactions: bigint;
  }
  /** WAL was lost before it was read; the same is a row of `bemi.gaps`. */
  | { readonly kind: "gap"; readonly from: string; readonly to: string; readonly reason: string }
  | { readonly kind: "slot-created"; readonly slot: string }
  /** A heartbeat came back; `roundTrip` is the milliseconds that it took through the WAL. */
  | { readonly kind: "heartbeat"; readonly roundTrip: number }
  /** The server takes none from this role. */
  | { readonly kind: "heartbeat-refused"; readonly code: string }
  | { readonly kind: "maintenance-failed"; readonly code: string }
  | { readonly kind: "standby"; readonly slot: string }
  | { readonly kind: "retry"; readonly code: string; readonly delay: number }
  | { readonly kind: "stopped"; readonly written: number };

/** A running worker. */
export interface Worker extends AsyncDisposable {
  /** Settles when it has ended: by `once`, by `stop`, or with the error that it cannot go on with. */
  readonly finished: Promise<void>;
  /** When its loop last turned, in milliseconds since 1970: long ago means that it hangs. */
  readonly turnedAt: number;
  /** Ends it after the round that is under way. */
  stop(): Promise<void>;
}

/**
 * Reads the Write-Ahead Log and writes the log of changes, until it is stopped. Each change is written exactly once,
 * however often this is killed: rows and checkpoint go in one transaction, and the WAL is let go of only after it.
 *
 * @throws {BemiError} by `finished`: `schema_missing`, `wal_unavailable`, `gap`, `privilege_missing`
 * @example
 * ```ts
 * import { runWorker } from "@bemi/core/worker";
 * const worker = runWorker({ source: "postgres://localhost/app", once: true });
 * await worker.finished.catch((error: unknown) => console.error(error));
 * ```
 */
export function runWorker(options: WorkerOptions): Worker {
  const stopping = new AbortController();
  const stop = (): void => stopping.abort();
  if (options.signal?.aborted) stop();
  options.signal?.addEventListener("abort", stop, { once: true });
  let turnedAt = Date.now();
  const turn = (): void => void (turnedAt = Date.now());
  const finished = run({ ...options, turn }, stopping.signal).finally(() =>
    options.signal?.removeEventListener("abort", stop)
  );
  finished.catch(() => {});
  return {
    finished,
    get turnedAt() {
      return turnedAt;
    },
    stop: async () => {
      stop();
      await finished;
    },
    [Symbol.asyncDispose]: async () => {
      stop();
      await finished.catch(() => {});
    },
  };
}

export function lacksRights(cause: unknown): BemiError {
  return new BemiError("privilege_missing", "This role may not do a worker's work", {
    hint:
      "It needs REPLICATION and some rights on Bemi's schema: bemi generate roles makes one that has them.",
    cause,
  });
}

async function run(options: SessionOptions, signal: AbortSignal): Promise<void> {
  const { once = false, log = () => {}, tracer, turn } = options;
  let written = 0;
  let failures = 0;
  // In a row, and of their own count: connections that were lost before say nothing of the slot.
  let losses = 0;
  let reconnection: SpanLike | undefined;
  const reconnected = (): void => {
    reconnection?.end();
    reconnection = undefined;
  };
  const told = (event: WorkerEvent): void => {
    if (event.kind === "started") reconnected();
    log(event);
  };
  while (!signal.aborted) {
    turn?.();
    const startedAt = performance.now();
    try {
      const sockets = socketWatch();
      const turned = (): void => {
        turn?.();
        sockets.turned();
      };
      await sockets.guard(
        (signal) =>
          session({ ...options, sockets, turn: turned, log: told }, signal, (count) => {
            written += count;
            failures = losses = 0;
          }),
        signal,
      );
      break;
    } catch (error) {
      if (error instanceof LostMeanwhile) continue;
      // Lost while it was read: made anew where the next session begins.
      if (options.recreateSlot && error instanceof BemiError && error.code === "gap" && losses++ < 5) {
        continue;
      }
      const code = codeOf(error);
      // The slot went since it was looked at: the next session says so, or makes it anew.
      if (code === SQLSTATE.undefinedObject && losses++ < 5) continue;
      if (performance.now() - startedAt > WAS_WELL) failures = 0;
      failures++;
      if (code === SQLSTATE.insufficientPrivilege) throw lacksRights(error);
      if (!isTransient(code) || (once && failures > 5)) throw error;
      const delay = Math.min(30_000, 100 * 2 ** failures) * (0.5 + Math.random() / 2);
      log({ kind: "retry", code, delay: Math.round(delay) });
      reconnection ??= tracer?.startSpan("bemi.reconnect");
      reconnection?.setAttributes({ "error.type": code, "bemi.attempts": failures });
      await pause(delay, signal);
    }
  }
  reconnected();
  log({ kind: "stopped", written });
}

/** A session that lasted so long, in milliseconds, was no failure to begin with: the next try comes soon. */
const WAS_WELL = 30_000;
