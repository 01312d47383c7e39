/**
 * PGlite, with the context of each write set for it.
 *
 * @module
 */
import { AsyncLocalStorage } from "node:async_hooks";
import { SET_CONTEXT } from "../context/context-sql.ts";
import { statementContext } from "../context/statement-context.ts";
import { refusesTransactions, warnOfBareRun } from "./refuses-transactions.ts";
import { replacing } from "./replacing.ts";
import { statementKind } from "./statement-kind.ts";
import { contextAhead, type TransactionContext, UNKNOWN } from "./transaction-context.ts";
import { unsupportedClient } from "./unsupported-client.ts";
import { wrapOnce } from "./wrap-once.ts";
import { getsContextAlone, type WrapOptions } from "./wrap-options.ts";

export type { WrapOptions } from "./wrap-options.ts";

/** A method that settles later; its arguments do not matter here. */
export type AsyncMethod = (...args: never[]) => Promise<unknown>;

/** What of a PGlite is replaced; everything else stays as it is. */
export interface PgliteClient {
  /** Runs one statement. */
  readonly query: AsyncMethod;
  /** Runs several statements in one string. */
  readonly exec: AsyncMethod;
  /** Runs a tagged template. */
  readonly sql: AsyncMethod;
  /** Runs a function in a transaction. */
  readonly transaction: AsyncMethod;
}

interface Transaction {
  query(sql: string, ...rest: unknown[]): Promise<unknown>;
  exec(sql: string, ...rest: unknown[]): Promise<unknown>;
  sql(strings: TemplateStringsArray, ...values: unknown[]): Promise<unknown>;
  rollback(): Promise<void>;
}

type Pglite = Omit<Transaction, "rollback"> & {
  transaction(fn: (tx: Transaction) => Promise<unknown>): Promise<unknown>;
};

interface OpenTransaction {
  readonly tx: Transaction;
  readonly savepoint: <R>(fn: (tx: Transaction) => Promise<R>) => Promise<R>;
  isOpen: boolean;
}

/**
 * Wraps a PGlite: a write made within a context carries it; outside one nothing changes.
 * PGlite has one session, and calling `db.query` within `db.transaction` blocks forever: here it joins the transaction.
 *
 * @throws {BemiError} `unsupported_client`
 * @example
 * ```ts
 * import { PGlite } from "@electric-sql/pglite";
 * import { withBemi } from "@bemi/core/pglite";
 * const db = withBemi(await PGlite.create());
 * ```
 */
export function withBemi<D extends PgliteClient>(db: D, options: WrapOptions = {}): D {
  if (typeof db?.exec !== "function" || typeof db.transaction !== "function") {
    throw unsupportedClient(db, {
      subpath: "pglite",
      takes: "a PGlite",
      hint: "Pass what `await PGlite.create()` returns.",
    });
  }
  return wrapOnce(db, () => wrapDatabase(db as unknown as Pglite, options));
}

function wrapDatabase(inner: Pglite, options: WrapOptions): Pglite {
  const current: AsyncLocalStorage<OpenTransaction> = new AsyncLocalStorage();
  const joined = (): OpenTransaction | undefined => {
    const open = current.getStore();
    return open?.isOpen ? open : undefined;
  };

  const run = async (method: "query" | "exec", sql: string, rest: unknown[]): Promise<unknown> => {
    const open = joined();
    if (open) return await open.tx[method](sql, ...rest);
    const context = statementContext();
    if (context === undefined || !getsContextAlone(statementKind(sql), options)) {
      return await inner[method](sql, ...rest);
    }
    try {
      return await inner.transaction(async (tx) => {
        await tx.query(SET_CONTEXT, [context]);
        return await tx[method](sql, ...rest);
      });
    } catch (error) {
      if (!refusesTransactions(error)) throw error;
      warnOfBareRun();
      return await inner[method](sql, ...rest);
    }
  };

  const replaced = {
    query: (sql: string, ...rest: unknown[]) => run("query", sql, rest),
    exec: (sql: string, ...rest: unknown[]) => run("exec", sql, rest),
    // PGlite's template tag calls the `query` of whatever it is called on.
    sql: (strings: TemplateStringsArray, ...values: unknown[]) => inner.sql.call(wrapped, strings, ...values),
    transaction: async (fn: (tx: Transaction) => Promise<unknown>): Promise<unknown> => {
      const open = joined();
      if (open) return await open.savepoint(fn);
      return await inner.transaction(async (tx) => {
        const entered = openTransaction(tx);
        try {
          return await current.run(entered, () => fn(entered.tx));
        } finally {
          entered.isOpen = false;
        }
      });
    },
  };

  const wrapped = replacing(inner, replaced);
  return wrapped;
}

function openTransaction(tx: Transaction): OpenTransaction {
  const state: TransactionContext = { sent: "" };
  let savepoints = 0;
  const inContext = async (sql: string, statement: () => Promise<unknown>): Promise<unknown> => {
    const ahead = contextAhead(state, statementKind(sql), statementContext);
    // Not awaited, or a statement made meanwhile would overtake this one. Where it fails the statement does too.
    if (ahead !== undefined) tx.query(SET_CONTEXT, [ahead]).catch(() => {});
    try {
      return await statement();
    } catch (error) {
      state.sent = UNKNOWN;
      throw error;
    }
  };
  const replaced = {
    query: (sql: string, ...rest: unknown[]) => inContext(sql, () => tx.query(sql, ...rest)),
    exec: (sql: string, ...rest: unknown[]) => inContext(sql, () => tx.exec(sql, ...rest)),
    sql: (strings: TemplateStringsArray, ...values: unknown[]) =>
      inContext(strings.join("?"), () => tx.sql(strings, ...values)),
    rollback: async () => {
      open.isOpen = false;
      await tx.rollback();
    },
  };
  const open: OpenTransaction = {
    tx: replacing(tx, replaced),
    isOpen: true,
    savepoint: async (fn) => {
      const name = `bemi_${++savepoints}`;
      await tx.exec(`savepoint ${name}`);
      try {
        const result = await fn(open.tx);
        await tx.exec(`release savepoint ${name}`);
        return result;
      } catch (error) {
        await tx.exec(`rollback to savepoint ${name}`);
        state.sent = UNKNOWN;
        throw error;
      }
    },
  };
  return open;
}
