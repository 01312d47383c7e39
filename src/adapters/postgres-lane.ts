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

/**
 * Takes a connection of the pool, busy ones included, and calls `use` with it before anything has travelled: what
 * `use` sends goes in the same flush. When a transaction has ended on it, the driver takes the connection back.
 *
 * `sql.reserve()` would need an idle connection, and in 3.4.9 loses one for good whenever connecting fails.
 * The opening statement is an empty one: under back-pressure the driver skips `onexecute`, and a `begin` would then
 * stay open on a connection that nobody knows.
 */
export function openLane(
  sql: QueryMaker,
  use: (lane: Lane) => void,
  fail: (error: unknown) => void,
  attempts: number = 2 * (sql.options?.max ?? 10) + 8,
): void {
  let used = false;
  const onexecute = (connection: DriverConnection): void => {
    used = true;
    use(reserve(connection));
  };
  const opener = submit(sql.unsafe("", [], { onexecute, simple: true }));
  const again = (): void => openLane(sql, use, fail, attempts - 1);
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
