import { SQLSTATE, sqlstateOf } from "../database/sqlstate.ts";
import { BemiError } from "../errors.ts";
import { type Handler, type Query, submit } from "./postgres-query.ts";

/** A connection to oneself for as long as a transaction is open on it. */
export interface Lane {
  /** Sends at once, behind all that was sent before. */
  readonly send: Handler;
  /** Whether the connection is still there and ours. */
  isOpen(): boolean;
}

/** postgres.js' connection, as `sql.begin` gets hold of it. */
interface DriverConnection {
  execute(query: Query): unknown;
  reserved: (() => void) | null;
  onclose: ((error: unknown) => void) | null;
}

/** What makes queries; `onexecute` is the option by which the driver's own `begin` reserves a connection. */
export interface QueryMaker {
  unsafe(text: string, parameters?: unknown[], options?: object): Query;
  readonly options?: { readonly max?: number };
}

/** The connections seen so far, by what the driver writes into each query that it executes on them. */
const connections: WeakMap<object, DriverConnection> = new WeakMap();

/**
 * Takes a connection of the pool, busy ones included, sends `opening` on it and calls `use` before anything has
 * travelled: what `use` sends goes in the same flush. When a transaction has ended on it, the driver takes the
 * connection back. Where `opening` gives nothing, nothing is done.
 *
 * `sql.reserve()` would need an idle connection, and in 3.4.9 loses one for good whenever connecting fails.
 * The driver's `onexecute` tells the connection only once the text is written, and under back-pressure not at all: a
 * `begin` would then stay open on a connection that nobody knows. So the text is empty on a connection not seen
 * before, and `opening` follows it. One that was seen is known by its state, which the driver sets before it reads the
 * text: that saves each write a query.
 */
export function openLane(
  sql: QueryMaker,
  opening: () => string | undefined,
  use: (lane: Lane) => void,
  fail: (error: unknown) => void,
  attempts: number = 2 * (sql.options?.max ?? 10) + 8,
): void {
  let used = false;
  let isSent = false;
  const take = (connection: DriverConnection): void => {
    if (used) return;
    used = true;
    const lane = reserve(connection);
    if (!isSent) {
      const text = opening();
      if (text === undefined) return;
      sendOn(lane, sql.unsafe(text));
    }
    use(lane);
  };
  const onexecute = (connection: DriverConnection): void => {
    if (opener.state) connections.set(opener.state, connection);
    take(connection);
  };
  const opener = sql.unsafe("", [], { onexecute, simple: true });
  opener.strings = new LateText(() => {
    const connection = opener.state ? connections.get(opener.state) : undefined;
    const text = connection ? opening() : undefined;
    if (!connection || text === undefined) return "";
    isSent = true;
    // Under back-pressure: nothing else has been sent on it by then.
    queueMicrotask(() => take(connection));
    return text;
  });
  submit(opener);
  const again = (): void => openLane(sql, opening, use, fail, attempts - 1);
  Promise.prototype.then.call(
    opener,
    () => {
      if (used) return;
      if (attempts > 0) return again();
      fail(
        new BemiError("connection_failed", "No connection of the pool took a transaction", {
          hint: "Try again.",
        }),
      );
    },
    (error: unknown) => {
      if (used) return;
      // A killed connection greets its next user with the old error: nothing was sent, so it is asked once more.
      if (attempts > 0 && sqlstateOf(error) === SQLSTATE.adminShutdown) return again();
      fail(error);
    },
  );
}

/** The only string of a query, made when the driver asks for it. */
class LateText implements ArrayLike<string> {
  readonly [index: number]: string;
  readonly length = 1;
  readonly #make: () => string;

  constructor(make: () => string) {
    this.#make = make;
  }

  get 0(): string {
    return this.#make();
  }
}

/** Sends a query of our own on a lane. */
export function sendOn(lane: Lane, query: Query): void {
  query.handler = lane.send;
  submit(query);
}

function reserve(connection: DriverConnection): Lane {
  const waiting: Query[] = [];
  let full = false;
  const execute = (query: Query): void => {
    full = !connection.execute(query);
  };
  // Called by the driver when all that was sent is answered and the transaction is still open.
  const next = (): void => {
    const query = waiting.shift();
    if (query) execute(query);
    else full = false;
  };
  const isOpen = (): boolean => connection.reserved === next;
  connection.reserved = next;
  connection.onclose = (error) => {
    for (const query of waiting.splice(0)) query.reject(error);
  };
  return {
    isOpen,
    send: (query) => {
      if (full) waiting.push(query);
      else execute(query);
    },
  };
}
