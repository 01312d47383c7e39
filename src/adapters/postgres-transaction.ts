import { contextLiteralSql } from "../context/context-sql.ts";
import { BemiError } from "../errors.ts";
import type { Lane, QueryMaker } from "./postgres-lane.ts";
import { type Handler, type Query, withAccessors } from "./postgres-query.ts";
import { refusesTransactions, warnOfBareRun } from "./refuses-transactions.ts";

export interface OwnTransaction {
  readonly context: string;
  readonly sql: QueryMaker;
  /** Gets a connection and sends `opening` on it; `use` sends at once what follows. */
  readonly open: (
    opening: () => string | undefined,
    use: (lane: Lane) => void,
    fail: (error: unknown) => void,
  ) => void;
  /** The driver's own way, for a statement that refuses to run in a transaction. */
  readonly bare: Handler;
}

interface Failure {
  readonly error: unknown;
  /** It was not carried out, and the driver would have sent it again. */
  readonly isRetriable?: true;
}

export type Outcome = { readonly value: unknown } | Failure;

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
  const opening = (): string | undefined =>
    query.cancelled ? undefined : `begin;${contextLiteralSql(transaction.context)}`;
  const run = query.streaming ? runStream : runStatement;
  transaction.open(
    opening,
    (lane) => run(query, transaction, lane),
    (error) => query.reject(error),
  );
}

// By callbacks, the driver's own way: within a context each promise costs several microseconds.
function runStatement(query: Query, transaction: OwnTransaction, lane: Lane): void {
  let first: Outcome | undefined;
  let last: Outcome | undefined;
  const conclude = (): void => {
    if (!first || !last) return;
    if ("error" in first) return fail(held, first, transaction);
    held.settle("error" in last ? last : first);
  };
  const held = hold(query, (outcome) => {
    first = outcome;
    conclude();
  });
  lane.send(query);
  end("commit", lane, transaction.sql, query, (outcome) => {
    last = outcome;
    conclude();
  });
}

// COPY: the caller gets the stream at once, and the transaction ends with it.
function runStream(query: Query, transaction: OwnTransaction, lane: Lane): void {
  const finish = (command: "commit" | "rollback"): Promise<Outcome> =>
    new Promise((done) =>
      // The driver calls from within its message handler, where it takes no further query yet.
      setImmediate(() => end(command, lane, transaction.sql, query, done))
    );
  let isStreaming = false;
  let failLater: (error: unknown) => void = () => {};
  const failed = new Promise<unknown>((told) => failLater = told);
  const held = hold(query, async (outcome) => {
    if (isStreaming) {
      if ("error" in outcome) failLater(outcome.error);
    } else if ("error" in outcome) {
      await finish("rollback");
      fail(held, outcome, transaction);
    } else {
      isStreaming = true;
      endWithStream(outcome.value as Stream, failed, finish);
      held.settle(outcome);
    }
  });
  lane.send(query);
}

function fail({ query, settle, restore }: Held, failure: Failure, transaction: OwnTransaction): void {
  if (!failure.isRetriable && !refusesTransactions(failure.error)) return settle(failure);
  queueMicrotask(() => {
    restore();
    if (failure.isRetriable) return runInTransaction(query, transaction);
    warnOfBareRun();
    transaction.bare(query);
  });
}

function end(
  command: "commit" | "rollback",
  lane: Lane,
  sql: QueryMaker,
  query: Query,
  done: (outcome: Outcome) => void,
): void {
  if (!lane.isOpen()) {
    return done({
      error: new BemiError(
        "connection_failed",
        "The connection closed before the transaction was committed",
        {
          hint: "It was rolled back: try again.",
        },
      ),
    });
  }
  const made: Ending = sql.unsafe(command);
  made.resolve = (value) => done({ value });
  made.reject = (error) => done({ error });
  made.executed = true;
  made[ENDED] = query;
  nameStatement(made);
  lane.send(made);
}

const ENDED = Symbol("ended");
type Ending = Query & { [ENDED]?: Query };

// A deferred constraint fails at the commit: its error names the statement.
const nameStatement = withAccessors({
  string: {
    get(this: Ending) {
      return this[ENDED]?.string;
    },
    set() {},
  },
  origin: {
    get(this: Ending) {
      return this[ENDED]?.origin;
    },
  },
});

export interface Held {
  readonly query: Query;
  /** Settles the query, as the driver would have. */
  readonly settle: (outcome: Outcome) => void;
  /** Gives it back to the driver, to be sent again. */
  readonly restore: () => void;
}

/** Holds back how a query ends: `tell` gets it instead, and what comes after it. */
export function hold(query: Query, tell: (outcome: Outcome) => void): Held {
  const drivers = { resolve: query.resolve, reject: query.reject };
  const prototype = Object.getPrototypeOf(query) as object;
  const told = (outcome: Outcome): void => {
    query.active = false;
    tell(outcome);
  };
  const resolve = (value: unknown): void => told({ value });
  const reject = (error: unknown): void => told({ error });
  // A cursor replaces both with each batch.
  if (query.cursorFn) {
    Object.defineProperties(query, {
      resolve: { configurable: true, get: () => resolve, set: (fn) => drivers.resolve = fn },
      reject: { configurable: true, get: () => reject, set: (fn) => drivers.reject = fn },
    });
  } else Object.assign(query, { resolve, reject });
  (query as Retried)[RETRIED] = (error) => told({ error, isRetriable: true });
  tellOfRetry(query);
  return {
    query,
    settle: (outcome) => "error" in outcome ? drivers.reject(outcome.error) : drivers.resolve(outcome.value),
    restore: () => {
      Object.setPrototypeOf(query, prototype);
      for (const [name, value] of Object.entries(drivers)) {
        Object.defineProperty(query, name, { configurable: true, enumerable: true, writable: true, value });
      }
      query.cancelled = null;
    },
  };
}

const RETRIED = Symbol("retried");
type Retried = Query & { [RETRIED]?: (error: unknown) => void };

// A prepared plan that an ALTER TABLE made stale: the driver would repeat the statement behind our commit, and so
// without its context. Cancelled it stays unsent, and the whole transaction is repeated.
const tellOfRetry = withAccessors({
  retried: {
    get: () => undefined,
    set(this: Retried, error: unknown) {
      this.cancelled = true;
      this[RETRIED]?.(error);
    },
  },
});

/** Ends the transaction when the stream ends; `failed` is an error that comes after the stream. */
function endWithStream(
  copy: Stream,
  failed: Promise<unknown>,
  end: (command: "commit" | "rollback") => Promise<Outcome>,
): void {
  let ending: Promise<Outcome> | undefined;
  const finish = (command: "commit" | "rollback"): Promise<Outcome> => ending ??= end(command);
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
      done((error ?? ("error" in ended ? ended.error : null)) as Error | null);
    };
    // What the server finds wrong after the last row, the driver would tell nobody.
    failed.then((error) => conclude("rollback", error));
    final(() => conclude("commit"));
  };
  copy.once("close", () => void finish("rollback"));
}
