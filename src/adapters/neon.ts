/**
 * Neon's serverless driver, over HTTP and over WebSockets, with the context of each write set for it.
 *
 * @module
 */
import { SET_CONTEXT } from "../context/context-sql.ts";
import { laterStatementContext, statementContext } from "../context/statement-context.ts";
import { type PgClient, withBemi as withPg } from "./pg.ts";
import { refusesTransactions, warnOfBareRun } from "./refuses-transactions.ts";
import { replacing } from "./replacing.ts";
import { statementKind } from "./statement-kind.ts";
import { contextAhead, type TransactionContext } from "./transaction-context.ts";
import { unsupportedClient } from "./unsupported-client.ts";
import { wrapOnce } from "./wrap-once.ts";
import { getsContextAlone, type WrapOptions } from "./wrap-options.ts";

export type { WrapOptions } from "./wrap-options.ts";

/** What of the function that `neon(…)` returns is replaced; everything else stays as it is. */
export interface NeonHttpClient {
  // deno-lint-ignore no-explicit-any -- the driver's own types are kept by the type parameter of withBemi
  (strings: any, ...args: any[]): any;
  /** Runs one statement as one request. */
  // deno-lint-ignore no-explicit-any
  query(...args: any[]): any;
  /** Runs several statements as one transaction, in one request. */
  // deno-lint-ignore no-explicit-any
  transaction(...args: any[]): any;
}

/** A lazy query over HTTP: what of its inner life is used here. */
interface NeonQuery extends PromiseLike<unknown> {
  execute(data: unknown, options: object | undefined): Promise<unknown>;
  readonly queryData: unknown;
}

type Sql = ((...args: unknown[]) => NeonQuery) & {
  query(text: string, values?: unknown[], options?: object): NeonQuery;
  transaction(queries: readonly NeonQuery[], options?: object): Promise<unknown[]>;
};

type Batch = readonly NeonQuery[] | ((sql: Sql) => readonly NeonQuery[]);

/**
 * Wraps what `neon(…)` returns, or a `Pool` or `Client` of Neon's: a write made within a context carries it; outside
 * one nothing changes. Over HTTP the context and the write are one batch, and so one request and one transaction.
 *
 * @throws {BemiError} `unsupported_client`
 * @example
 * ```ts
 * import { neon } from "@neondatabase/serverless";
 * import { withBemi } from "@bemi/core/neon";
 * const sql = withBemi(neon("postgres://user:password@host.neon.tech/app"));
 * ```
 */
export function withBemi<C extends NeonHttpClient | PgClient>(client: C, options: WrapOptions = {}): C {
  if (typeof client === "function" && "transaction" in client) {
    return wrapOnce(client, () => wrapHttp(client as unknown as Sql, options));
  }
  if (!client || typeof client.query !== "function" || typeof (client as PgClient).connect !== "function") {
    throw unsupportedClient(client, {
      subpath: "neon",
      takes: "what neon(…) returns, or Neon's Pool or Client",
      hint: "Pass what neon(…) or new Pool(…) of @neondatabase/serverless returns.",
    });
  }
  return wrapOnce(
    client,
    () => withPg("totalCount" in client ? overWebSocket(client) : client as PgClient, options),
  );
}

/** With `poolQueryViaFetch` a pool sends single queries over HTTP, without the context: within one it may not. */
function overWebSocket<P extends object>(pool: P): P & PgClient {
  return new Proxy(pool, {
    get: (target, name, receiver) =>
      name === "hasFetchUnsupportedListeners" && statementContext() !== undefined
        ? true
        : Reflect.get(target, name, receiver) as unknown,
  }) as P & PgClient;
}

function wrapHttp(sql: Sql, options: WrapOptions): Sql {
  const contexts = new WeakMap<NeonQuery, () => string | undefined>();
  const setContext = (context: string): NeonQuery => sql.query(SET_CONTEXT, [context]);

  const adopt = (query: NeonQuery): NeonQuery => {
    const context = laterStatementContext();
    contexts.set(query, context);
    const bare = query.execute;
    query.execute = async (data, sending) => {
      const text = getsContextAlone(statementKind(textOf(query.queryData)), options) ? context() : undefined;
      if (text === undefined) return await bare.call(query, data, sending);
      try {
        // As `transaction` does, which would drop the query's own token and connection: by place those of the result.
        const batch = [setContext(text).queryData, data];
        return (await bare.call(query, batch, { ...sending, 1: sending }) as unknown[])[1];
      } catch (error) {
        if (!refusesTransactions(error)) throw error;
        warnOfBareRun();
        return await bare.call(query, data, sending);
      }
    };
    return query;
  };

  const transaction = async (batch: Batch, ...rest: [object?]): Promise<unknown[]> => {
    const queries = typeof batch === "function" ? batch(wrapped) : batch;
    const state: TransactionContext = { sent: "" };
    const sent = queries.flatMap((query) => {
      const kind = statementKind(textOf(query.queryData));
      const ahead = contextAhead(state, kind, contexts.get(query) ?? statementContext);
      return ahead === undefined ? [query] : [setContext(ahead), query];
    });
    const results = await sql.transaction(sent, ...rest);
    return results.filter((_, n) => queries.includes(sent[n] as NeonQuery));
  };

  const wrapped: Sql = new Proxy(
    replacing(sql, {
      query: (...args: Parameters<Sql["query"]>) => adopt(sql.query(...args)),
      transaction,
    }),
    { apply: (_target, _this, args) => adopt(sql(...args)) },
  );
  return wrapped;
}

/** The statement's words: nested fragments and raw text in their places, a `?` for each value. */
function textOf(data: unknown): string {
  const { query, strings = [], values = [], sql, queryData } = data as {
    query?: string;
    strings?: readonly string[];
    values?: readonly unknown[];
    sql?: string;
    queryData?: unknown;
  };
  if (queryData !== undefined) return textOf(queryData);
  if (query !== undefined || sql !== undefined) return query ?? sql ?? "";
  const word = (value: unknown): string => {
    const isPart = typeof value === "object" && value !== null &&
      ("queryData" in value || "sql" in value || "strings" in value);
    return isPart ? textOf(value) : " ? ";
  };
  return strings.reduce((text, part, n) => `${text}${word(values[n - 1])}${part}`);
}
