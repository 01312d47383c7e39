import { bindAsync } from "../context/bind-async.ts";
import { contextLiteralSql } from "../context/context-sql.ts";
import { statementContext } from "../context/statement-context.ts";
import {
  bindHandlers,
  type Connection,
  holdBack,
  isOwnQuery,
  isRefused,
  isSubmittable,
  onRefusal,
  sendContextAhead,
  type Submittable,
} from "./pg-query.ts";
import { refusesTransactions, warnOfBareRun } from "./refuses-transactions.ts";
import { replacing } from "./replacing.ts";
import { type StatementKind, statementKind } from "./statement-kind.ts";
import { contextAhead, type TransactionContext, UNKNOWN } from "./transaction-context.ts";
import { getsContextAlone, type WrapOptions } from "./wrap-options.ts";

/** A pg `Client`, loosely. */
export interface RawClient {
  readonly connection: Connection;
  readonly constructor: { readonly Query: new (...args: unknown[]) => Submittable };
  readonly readyForQuery?: boolean;
  readonly pipeline?: boolean;
  query(...args: unknown[]): unknown;
  connect(callback?: () => void): Promise<unknown> | undefined;
}

interface State extends TransactionContext {
  /** As the server last said: idle, in a transaction block, in a failed one. */
  status: string;
  /** Queries made here, and not yet sent: they may still change `sent`. */
  waiting: number;
  unanswered: number;
  /** While it is held, the connection is one query's own. */
  lock: Promise<void> | undefined;
}

interface Statement {
  readonly query: Submittable;
  readonly kind: StatementKind;
  readonly context: string | undefined;
  /** Whether it carries the context outside a transaction too. */
  readonly isWrite: boolean;
}

const states: WeakMap<RawClient, State> = new WeakMap();
const wrappers: Readonly<Record<"writes" | "all", WeakMap<RawClient, RawClient>>> = {
  writes: new WeakMap(),
  all: new WeakMap(),
};

/** The same wrapper each time, so that a pooled connection is the same object, whoever has it. */
export function wrapClient(client: RawClient, options: WrapOptions): RawClient {
  const made = wrappers[options.wrap ?? "writes"];
  const known = made.get(client);
  if (known) return known;
  const wrapper = replacing(client, {
    query: makeQuery(client, options),
    connect: (callback?: () => void) =>
      callback
        ? client.connect(bindAsync(callback))
        : client.connect()?.then((result) => result === client ? wrapper : result),
  });
  made.set(client, wrapper);
  return wrapper;
}

function stateOf(client: RawClient): State {
  const known = states.get(client);
  if (known) return known;
  const state: State = { status: "I", sent: "", waiting: 0, unanswered: 0, lock: undefined };
  // Ahead of pg's own listener, which sends the next query.
  client.connection.prependListener("readyForQuery", ({ status }) => {
    if (state.unanswered > 0) state.unanswered--;
    if (status && (!client.pipeline || state.unanswered === 0)) state.status = status;
  });
  states.set(client, state);
  return state;
}

function makeQuery(client: RawClient, options: WrapOptions): (...args: unknown[]) => unknown {
  const state = stateOf(client);
  const start = (statement: Statement): void => {
    if (state.lock) {
      state.lock.then(() => start(statement));
    } else if (statement.isWrite && statement.kind.isSimple) {
      const lock = sendAlone(client, state, statement).finally(() => {
        if (state.lock === lock) state.lock = undefined;
      });
      state.lock = lock;
    } else {
      send(client, state, statement);
    }
  };

  return (...args) => {
    const context = statementContext();
    const isUntouched = state.sent === "" && state.waiting === 0 && !state.lock && !client.pipeline;
    if (args[0] == null || context === undefined && isUntouched) return client.query(...bindCallbacks(args));
    const { query, result } = prepareQuery(client, args);
    const kind = statementKind(textOf(query, client.connection));
    const isWrite = context !== undefined && getsContextAlone(kind, options);
    start({ query, kind, context, isWrite });
    return result;
  };
}

// What to send is decided as late as possible: when all that was asked before has been answered.
function send(client: RawClient, state: State, statement: Statement): void {
  const { query } = statement;
  const submit = query.submit;
  state.waiting++;
  query.submit = (connection) => {
    query.submit = submit;
    state.waiting--;
    state.unanswered++;
    const sendQuery = (): unknown => submit.call(query, connection);
    if (isRefused(query, connection)) {
      state.unanswered--;
      return sendQuery();
    }
    const inTransaction = state.status !== "I";
    const context = contextToSend(state, statement);
    follow(state, statement.kind);
    if (context === undefined) return sendQuery();
    if (!inTransaction && isOwnQuery(query)) onRefusal(query, () => repeatBare(client, query));
    return sendContextAhead(query, context, connection, { inTransaction, sendQuery });
  };
  client.query(query);
}

// What only the simple protocol can send cannot share an implicit transaction: it gets an explicit one.
async function sendAlone(client: RawClient, state: State, statement: Statement): Promise<void> {
  const { query, context = "" } = statement;
  if (!client.readyForQuery) await Promise.resolve(client.query("")).catch(() => {});
  if (state.status !== "I") return send(client, state, statement);
  try {
    await client.query(`begin;${contextLiteralSql(context)}`);
  } catch (error) {
    query.handleError?.(error, client.connection);
    return;
  }
  const { outcome, settle, restore } = holdBack(query);
  client.query(query);
  const error = await outcome;
  const failed = await (client.query("commit") as Promise<unknown>).then(() => undefined, (error) => error);
  restore();
  if (isOwnQuery(query) && refusesTransactions(error)) repeatBare(client, query);
  else settle(failed);
}

function repeatBare(client: RawClient, query: Submittable): void {
  warnOfBareRun();
  client.query(query);
}

function contextToSend(state: State, { kind, context, isWrite }: Statement): string | undefined {
  if (state.status === "E") return undefined;
  if (state.status !== "I") return contextAhead(state, kind, () => context);
  state.sent = "";
  return isWrite ? context : undefined;
}

function follow(state: State, { rollsBack, leaves }: StatementKind): void {
  if (rollsBack) state.sent = UNKNOWN;
  if (!leaves) return;
  state.sent = leaves === "open" && state.status !== "I" ? UNKNOWN : "";
  state.status = leaves === "open" ? "T" : "I";
}

function prepareQuery(client: RawClient, args: unknown[]): { query: Submittable; result: unknown } {
  const [config, values, callback] = args;
  if (isSubmittable(config)) {
    config.callback ??= typeof values === "function" ? values : callback;
    bindHandlers(config);
    return { query: config, result: config };
  }
  const query = new client.constructor.Query(config, values, callback);
  query.query_timeout = (config as { query_timeout?: unknown }).query_timeout;
  if (query.callback) {
    if (typeof query.callback !== "function") throw new TypeError("callback is not a function");
    query.callback = bindAsync(query.callback as () => void);
    return { query, result: undefined };
  }
  const result = new Promise((resolve, reject) => {
    query.callback = (error: unknown, rows: unknown) => error ? reject(error) : resolve(rows);
  }).catch((error) => {
    // As pg does: the caller's line rather than the socket's.
    Error.captureStackTrace?.(error);
    throw error;
  });
  return { query, result };
}

function bindCallbacks(args: unknown[]): unknown[] {
  return args.map((value) => {
    if (typeof value === "function") return bindAsync(value as () => void);
    if (isSubmittable(value)) bindHandlers(value);
    else if (hasCallback(value)) return { ...value, callback: bindAsync(value.callback) };
    return value;
  });
}

function hasCallback(value: unknown): value is { callback: () => void } {
  return typeof value === "object" && value !== null && "callback" in value &&
    typeof value.callback === "function";
}

function textOf(query: Submittable, { parsedStatements }: Connection): string {
  const text = query.text ?? query.cursor?.text ?? (query.name && parsedStatements?.[query.name]);
  return typeof text === "string" ? text : "";
}
