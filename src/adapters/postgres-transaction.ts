import { contextLiteralSql } from "../context/context-sql.ts";
import { BemiError } from "../errors.ts";
import type { Lane, QueryMaker } from "./postgres-lane.ts";
import { type Handler, type Query, submit } from "./postgres-query.ts";
import { refusesTransactions, warnOfBareRun } from "./refuses-transactions.ts";

export interface OwnTransaction {
  readonly context: string;
  readonly sql: QueryMaker;
  /** Gets a connection; `use` sends on it at once. */
  readonly open: (use: (lane: Lane) => void, fail: (error: unknown) => void) => void;
  /** The driver's own way, for a statement that refuses to run in a transaction. */
  readonly bare: Handler;
}

type Outcome = { readonly value: unknown } | { readonly error: unknown; readonly retriable?: true };

interface Stream {
  _final?(done: (error?: Error | null) => void): void;
  _read?(size: number): void;
  once(event: string, listener: () => void): void;
}

/**
 * Runs a query in a transaction of its own, with the context: `begin` and the context travel with it, and `commit`
 * right behind. The query settles only when the commit has answered.
 */
export function runInTransaction(query: Query, transaction: OwnTransaction): void {
  const { context, sql, open, bare } = transaction;
  open((lane) => {
    // Nothing is sent on the connection, and the driver takes it back.
    if (query.cancelled) return;
    send(lane, sql.unsafe(`begin;${contextLiteralSql(context)}`));
    const { outcome, failed, settle, restore } = intercept(query);
    lane.send(query);
    const conclude = async (error: unknown): Promise<void> => {
      const first = await outcome;
      if (!("error" in first)) return settle(error === undefined ? first : { error });
      const refused = refusesTransactions(first.error);
      if (!refused && !first.retriable) return settle(first);
      restore();
      if (first.retriable) return runInTransaction(query, transaction);
      warnOfBareRun();
      bare(query);
    };
    if (!query.streaming) return void end("commit", lane, sql, query).then(conclude);
    outcome.then((first) => {
      if ("error" in first) return end("rollback", lane, sql, query).then(conclude);
      endWithStream(first.value as Stream, failed, (command) => end(command, lane, sql, query));
      settle(first);
    });
  }, (error) => query.reject(error));
}

function send(lane: Lane, query: Query): Query {
  query.handler = lane.send;
  return submit(query);
}

/** Resolves to what went wrong with it, or `undefined`. */
function end(command: "commit" | "rollback", lane: Lane, sql: QueryMaker, query: Query): Promise<unknown> {
  if (!lane.isOpen()) {
    return Promise.resolve(
      new BemiError("connection_failed", "The connection closed before the transaction was committed", {
        hint: "It was rolled back: try again.",
      }),
    );
  }
  const made = sql.unsafe(command);
  // A deferred constraint fails here: its error names the statement, not the commit.
  Object.defineProperties(made, {
    string: { get: () => query.string, set() {} },
    origin: { get: () => query.origin },
  });
  return Promise.prototype.then.call(send(lane, made), () => undefined, (error: unknown) => error) as Promise<
    unknown
  >;
}

/** Holds back how the query ends; the driver sees its usual `resolve` and `reject`, which a cursor may also replace. */
export function intercept(query: Query): {
  outcome: Promise<Outcome>;
  /** An error, whether it is the outcome or comes after it. */
  failed: Promise<unknown>;
  settle: (outcome: Outcome) => void;
  restore: () => void;
} {
  let { resolve, reject } = query;
  let done: (outcome: Outcome) => void = () => {};
  const outcome = new Promise<Outcome>((settled) => done = settled);
  let fail: (error: unknown) => void = () => {};
  const failed = new Promise<unknown>((settled) => fail = settled);
  const end = (result: Outcome): void => {
    query.active = false;
    if ("error" in result) fail(result.error);
    done(result);
  };
  Object.defineProperties(query, {
    resolve: { configurable: true, get: () => (value: unknown) => end({ value }), set: (fn) => resolve = fn },
    reject: { configurable: true, get: () => (error: unknown) => end({ error }), set: (fn) => reject = fn },
    // A prepared plan that an ALTER TABLE made stale: the driver would repeat the statement behind our commit, and so
    // without its context. Cancelled it stays unsent, and the whole transaction is repeated.
    retried: {
      configurable: true,
      get: () => undefined,
      set: (error: unknown) => {
        query.cancelled = true;
        end({ error, retriable: true });
      },
    },
  });
  return {
    outcome,
    failed,
    settle: (result) => "error" in result ? reject(result.error) : resolve(result.value),
    restore: () => {
      Object.defineProperties(query, {
        resolve: { configurable: true, writable: true, value: resolve },
        reject: { configurable: true, writable: true, value: reject },
        retried: { configurable: true, writable: true, value: undefined },
      });
      query.cancelled = null;
    },
  };
}

// COPY: the caller gets the stream at once, and the transaction ends with it.
function endWithStream(
  copy: Stream,
  failed: Promise<unknown>,
  end: (command: "commit" | "rollback") => Promise<unknown>,
): void {
  let ending: Promise<unknown> | undefined;
  const finish = (command: "commit" | "rollback"): Promise<unknown> =>
    // The driver calls from within its message handler, where it takes no further query yet.
    ending ??= new Promise((done) => setImmediate(() => done(end(command))));
  const final = copy._final?.bind(copy);
  if (!final) {
    copy.once("close", () => {
      // The driver may have paused its socket with the last rows, and only a read resumes it.
      copy._read?.(0);
      finish("commit");
    });
    return;
  }
  copy._final = (done) => {
    const conclude = async (command: "commit" | "rollback", error?: unknown): Promise<void> => {
      const ended = await finish(command);
      done((error ?? ended ?? null) as Error | null);
    };
    // What the server finds wrong after the last row, the driver would tell nobody.
    failed.then((error) => conclude("rollback", error));
    final(() => conclude("commit"));
  };
  copy.once("close", () => void finish("rollback"));
}
