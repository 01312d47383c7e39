import { bindAsync } from "../context/bind-async.ts";
import { SET_CONTEXT } from "../context/context-sql.ts";
import { sqlstateOf } from "../database/sqlstate.ts";
import { refusesTransactions } from "./refuses-transactions.ts";

/** What pg can send: its own query, a cursor, a stream; what of their inner life is used here. */
export interface Submittable {
  submit(connection: Connection): unknown;
  readonly text?: string;
  name?: string | undefined;
  readonly values?: unknown;
  callback?: unknown;
  query_timeout?: unknown;
  /** A pg-query-stream keeps its text in its cursor. */
  readonly cursor?: { readonly text?: string };
  /** Only pg's own query has it. */
  requiresPreparation?(): boolean;
  handleDataRow?: Handler;
  handleCommandComplete?: Handler;
  handleReadyForQuery?: (connection: Connection) => void;
  handleError?: (error: unknown, connection: Connection) => void;
}

type Handler = (...args: never[]) => void;

/** pg's protocol, as queries use it. */
export interface Connection {
  parse(message: object, more?: boolean): void;
  bind(message: object, more?: boolean): void;
  execute(message: object, more?: boolean): void;
  sync(): void;
  prependListener(event: "readyForQuery", listener: (message: { status?: string }) => void): unknown;
  readonly stream: { cork?(): void; uncork?(): void };
  readonly parsedStatements?: Record<string, unknown>;
  readonly submittedNamedStatements?: Record<string, unknown>;
}

const HANDLERS = [
  "handleRowDescription",
  "handleDataRow",
  "handlePortalSuspended",
  "handleEmptyQuery",
  "handleCommandComplete",
  "handleReadyForQuery",
  "handleCopyInResponse",
  "handleCopyData",
  "handleError",
] as const;

export function isSubmittable(value: unknown): value is Submittable {
  return typeof value === "object" && value !== null && "submit" in value &&
    typeof value.submit === "function";
}

/** pg's answers come from the socket's events: what a query calls and emits runs in its caller's async context. */
export function bindHandlers(query: Submittable): void {
  const handlers = query as unknown as Record<string, ((...args: unknown[]) => unknown) | undefined>;
  for (const name of HANDLERS) {
    const handler = handlers[name];
    if (handler) handlers[name] = bindAsync(handler.bind(query));
  }
}

/**
 * Sends the context ahead of a query, in the same flush and with no Sync between: outside a transaction block the two
 * are one implicit transaction, which the query's own Sync commits. Until the context is answered, the query is not
 * to see the answers.
 *
 * @see https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-PIPELINING
 */
export function sendContextAhead(
  query: Submittable,
  context: string,
  connection: Connection,
  options: { readonly inTransaction: boolean; readonly sendQuery: () => unknown },
): unknown {
  const { name, handleDataRow, handleCommandComplete, handleError } = query;
  let ahead = true;
  const arrived = (): void => {
    ahead = false;
    query.name = name;
  };
  query.handleDataRow = (...args) => ahead ? undefined : handleDataRow?.apply(query, args);
  query.handleCommandComplete = (...args) => ahead ? arrived() : handleCommandComplete?.apply(query, args);
  query.handleError = (error, on) => {
    // An error of pg's own, of a value say, comes before the answers.
    if (ahead && sqlstateOf(error) !== undefined) {
      arrived();
      if (name) delete on.submittedNamedStatements?.[name];
      // The server skips all up to a Sync, which a query by the simple protocol has not.
      if (options.inTransaction && !isExtended(query)) on.sync();
    }
    handleError?.call(query, error, on);
  };
  connection.stream.cork?.();
  try {
    connection.parse({ text: SET_CONTEXT }, true);
    connection.bind({ values: [context] }, true);
    connection.execute({}, true);
    if (!options.inTransaction && isOwnQuery(query)) query.requiresPreparation = () => true;
    const refused = options.sendQuery();
    // Or pg would take the context's answer for that of the query's preparation.
    if (name) query.name = undefined;
    return refused;
  } finally {
    connection.stream.uncork?.();
  }
}

/** Does the query over, as pg would, where the server does not let it run in a transaction. */
export function onRefusal(query: Submittable, again: () => void): void {
  const handleError = query.handleError;
  query.handleError = (error, connection) => {
    Object.assign(query, { handleError });
    if (refusesTransactions(error)) again();
    else handleError?.call(query, error, connection);
  };
}

/** Keeps back how a query ends: `outcome` is its error, or `undefined`; `settle` lets it end, with a later error. */
export function holdBack(
  query: Submittable,
): { outcome: Promise<unknown>; settle: (error?: unknown) => void; restore: () => void } {
  const { handleReadyForQuery, handleError } = query;
  let settle: (error?: unknown) => void = () => {};
  const outcome = new Promise<unknown>((resolve) => {
    query.handleReadyForQuery = (connection) => {
      settle = (error) => {
        if (error === undefined) handleReadyForQuery?.call(query, connection);
        else handleError?.call(query, error, connection);
      };
      resolve(undefined);
    };
    query.handleError = (error, connection) => {
      settle = () => handleError?.call(query, error, connection);
      resolve(error);
    };
  });
  const restore = (): void => {
    Object.assign(query, { handleReadyForQuery, handleError });
  };
  return { outcome, settle: (error) => settle(error), restore };
}

/** Whether it is pg's own query, not a cursor or a stream. */
export function isOwnQuery(query: Submittable): boolean {
  return query.requiresPreparation !== undefined;
}

function isExtended(query: Submittable): boolean {
  return query.requiresPreparation?.() ?? "handlePortalSuspended" in query;
}

/** What pg's own query checks before it sends anything: the context must not travel alone. */
export function isRefused(query: Submittable, connection: Connection): boolean {
  const { text, name, values } = query;
  if (!isOwnQuery(query)) return false;
  if (typeof text !== "string" && typeof name !== "string") return true;
  if (values && !Array.isArray(values)) return true;
  const known = name && (connection.parsedStatements?.[name] ?? connection.submittedNamedStatements?.[name]);
  return Boolean(text && known && known !== text);
}
