/**
 * postgres.js, with the context of each write set for it.
 *
 * @module
 */
import { bindAsync } from "../context/bind-async.ts";
import { contextLiteralSql } from "../context/context-sql.ts";
import { laterStatementContext } from "../context/statement-context.ts";
import {
  bindCallbacks,
  type Handler,
  isQuery,
  keepOrigin,
  type Query,
  queryText,
  submit,
} from "./postgres-query.ts";
import { type Lane, openLane, type QueryMaker, sendOn } from "./postgres-lane.ts";
import { hold, type Outcome, type OwnTransaction, runInTransaction } from "./postgres-transaction.ts";
import { refusesTransactions, warnOfBareRun } from "./refuses-transactions.ts";
import { replaceable } from "./replacing.ts";
import { type StatementKind, statementKind, UNREAD } from "./statement-kind.ts";
import { contextAhead, type TransactionContext, UNKNOWN } from "./transaction-context.ts";
import { unsupportedClient } from "./unsupported-client.ts";
import { wrapOnce } from "./wrap-once.ts";
import { getsContextAlone, type WrapOptions } from "./wrap-options.ts";

export type { WrapOptions } from "./wrap-options.ts";

/** What of a postgres.js `Sql` is replaced; everything else stays as it is. */
export interface PostgresClient {
  // deno-lint-ignore no-explicit-any -- the driver's own types are kept by the type parameter of withBemi
  (strings: any, ...args: any[]): any;
  /** Runs text as SQL. */
  // deno-lint-ignore no-explicit-any
  unsafe(...args: any[]): any;
  /** Runs a function in a transaction. */
  // deno-lint-ignore no-explicit-any
  begin(...args: any[]): any;
  /** Takes a connection out of the pool. */
  // deno-lint-ignore no-explicit-any
  reserve(...args: any[]): any;
}

type Callback = (sql: Sql) => unknown;

/** postgres.js' `Sql` in any of its roles, loosely. */
interface Sql extends QueryMaker {
  (...args: unknown[]): unknown;
  file(...args: unknown[]): Query;
  begin(options: string, fn: Callback): Promise<unknown>;
  reserve(): Promise<Sql>;
  savepoint(...args: unknown[]): Promise<unknown>;
  listen(...args: unknown[]): Promise<unknown>;
  subscribe(...args: unknown[]): Promise<unknown>;
  end(...args: unknown[]): Promise<void>;
}

/** Sends a query, adding what the context needs. `send` is the driver's own way. */
type Run = (query: Query, send: Handler, context: () => string | undefined, reopen?: Reopen) => void;

/** Makes the same query on another connection: for `file`, whose handler is bound to the one it was made on. */
type Reopen = (on: Sql) => Query;

/**
 * Wraps a postgres.js client: a write made within a context carries it; outside one nothing changes.
 * A write outside a transaction gets one of its own, begun in the same round trip.
 *
 * @throws {BemiError} `unsupported_client`
 * @example
 * ```ts
 * import postgres from "postgres";
 * import { withBemi } from "@bemi/core/postgres";
 * const sql = withBemi(postgres());
 * ```
 */
export function withBemi<S extends PostgresClient>(sql: S, options: WrapOptions = {}): S {
  if (typeof sql !== "function" || typeof sql.reserve !== "function" || !isQuery(sql.unsafe(""))) {
    throw unsupportedClient(sql, {
      subpath: "postgres",
      takes: "the client of postgres.js",
      hint: "Pass what postgres(…) returns.",
    });
  }
  return wrapOnce(sql, () => wrapPool(sql as unknown as Sql, options));
}

function wrapPool(sql: Sql, options: WrapOptions): Sql {
  let ended = false;
  const run: Run = (query, send, context, reopen) => {
    const text = ended ? undefined : contextAlone(query, kindOf(query, reopen), context, options);
    if (text === undefined) return send(query);
    if (reopen) return runFile(sql, query, reopen, text, send);
    runInTransaction(query, {
      context: text,
      sql,
      open: (opening, use, fail) => openLane(sql, opening, use, fail),
      bare: send,
    });
  };
  return wrap(sql, run, {
    begin: (first: string | Callback, fn?: Callback) => {
      const [how, callback] = fn ? [first as string, fn] : ["", first as Callback];
      return sql.begin(how, (tx) => callback(wrapTransaction(tx)));
    },
    reserve: async () => wrapReserved(await sql.reserve(), options),
    // One connection hears for all, in the async context of whoever was the first.
    listen: (...args: unknown[]) => sql.listen(...args.map(bound)),
    subscribe: (...args: unknown[]) => sql.subscribe(...args.map(bound)),
    end: (...args: unknown[]) => {
      ended = true;
      return sql.end(...args);
    },
  });
}

const bound = (value: unknown): unknown =>
  typeof value === "function" ? bindAsync(value as () => void) : value;

// The driver reads the file first and then sends its text by the handler of the `sql` that made the query.
function runFile(sql: Sql, query: Query, reopen: Reopen, context: string, bare: Handler): void {
  let told: (outcome: Outcome) => void = () => {};
  const outcome = new Promise<Outcome>((resolve) => told = resolve);
  const { settle, restore } = hold(query, told);
  sql.begin("", async (tx) => {
    submit(tx.unsafe(contextLiteralSql(context)));
    reopen(tx).handler(query);
    const first = await outcome;
    if ("error" in first) throw first.error;
    return first.value;
  }).then((value) => settle({ value }), (error: unknown) => {
    if (!refusesTransactions(error)) return settle({ error });
    warnOfBareRun();
    restore();
    bare(query);
  });
}

const kindOf = (query: Query, reopen: Reopen | undefined): StatementKind =>
  reopen ? UNREAD : statementKind(queryText(query));

/** The context to run a query with in a transaction of its own, or `undefined` where it needs none. */
function contextAlone(
  query: Query,
  kind: StatementKind,
  context: () => string | undefined,
  options: WrapOptions,
): string | undefined {
  return query.onlyDescribe || !getsContextAlone(kind, options) ? undefined : context();
}

function wrapTransaction(tx: Sql, state: TransactionContext = { sent: "" }): Sql {
  const run: Run = (query, send, context, reopen) => {
    sendInTransaction(tx, state, kindOf(query, reopen), query, context);
    send(query);
  };
  const wrapped = wrap(tx, run, {
    savepoint: async (first: unknown, ...rest: unknown[]) => {
      if (isTemplate(first)) return await wrapped.savepoint((inner: Sql) => inner(first, ...rest));
      const named = typeof first === "function" ? [] : [first];
      const fn = (named.length ? rest[0] : first) as Callback;
      const guarded = (error: unknown): never => {
        state.sent = UNKNOWN;
        throw error;
      };
      return await tx.savepoint(...named, (inner: Sql) => {
        const result = fn(wrapTransaction(inner, state));
        return Promise.resolve(Array.isArray(result) ? Promise.all(result) : result).catch(guarded);
      }).catch(guarded);
    },
  });
  return wrapped;
}

function sendInTransaction(
  sql: Sql,
  state: TransactionContext,
  kind: StatementKind,
  query: Query,
  context: () => string | undefined,
): void {
  if (query.onlyDescribe) return;
  const ahead = contextAhead(state, kind, context);
  if (ahead !== undefined) submit(sql.unsafe(contextLiteralSql(ahead)));
}

function wrapReserved(sql: Sql, options: WrapOptions): Sql {
  const state: TransactionContext & { open: boolean } = { sent: "", open: false };
  const run: Run = (query, send, context, reopen) => {
    const kind = kindOf(query, reopen);
    if (state.open) {
      sendInTransaction(sql, state, kind, query, context);
    } else {
      const text = kind.leaves || reopen ? undefined : contextAlone(query, kind, context, options);
      if (text !== undefined) {
        const lane: Lane = { send: (next) => submitOn(sql, next), isOpen: () => true };
        const open: OwnTransaction["open"] = (opening, use) => {
          const first = opening();
          if (first === undefined) return;
          sendOn(lane, sql.unsafe(first));
          use(lane);
        };
        return runInTransaction(query, { context: text, sql, open, bare: send });
      }
    }
    if (kind.leaves && !query.onlyDescribe) {
      state.open = kind.leaves === "open";
      state.sent = "";
    }
    send(query);
  };
  return wrap(sql, run, {});
}

const submitOn = (sql: Sql, query: Query): void => sql.unsafe("").handler(query);

function wrap(sql: Sql, run: Run, replaced: Readonly<Record<string, unknown>>): Sql {
  const adopt = <T>(made: T, reopen?: Reopen): T => {
    if (!isQuery(made)) return made;
    const send = made.handler;
    const context = laterStatementContext();
    const handler: Handler = (query) => {
      bindCallbacks(query);
      run(query, send, context, reopen);
    };
    handler.debug = send.debug;
    made.handler = handler;
    return made;
  };
  const { members, traps } = replaceable<Sql>({
    unsafe: (...args: unknown[]) => adopt(sql.unsafe(...args as [string])),
    file: (...args: unknown[]) => adopt(sql.file(...args), (on) => on.file(...args)),
    ...replaced,
  });
  const handlers = {
    ...traps,
    apply: (_target: Sql, _this: unknown, args: unknown[]) => {
      const made = adopt(sql(...args));
      if (isQuery(made)) keepOrigin(made, handlers.apply);
      return made;
    },
    get: (_target: Sql, name: string | symbol) =>
      Object.hasOwn(members, name) ? members[name] : Reflect.get(sql, name) as unknown,
  };
  return new Proxy(sql, handlers);
}

function isTemplate(value: unknown): boolean {
  return Array.isArray(value) && "raw" in value;
}
