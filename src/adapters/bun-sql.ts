/**
 * Bun's own SQL client, with the context of each write set for it.
 *
 * @module
 */
import { bindAsync } from "../context/bind-async.ts";
import { laterStatementContext } from "../context/statement-context.ts";
import { type BunQuery, bunQueryAccess, type QueryAccess } from "./bun-query.ts";
import { refusesTransactions, warnOfBareRun } from "./refuses-transactions.ts";
import { replaceable } from "./replacing.ts";
import { type StatementKind, statementKind, UNREAD } from "./statement-kind.ts";
import { contextAhead, type TransactionContext, UNKNOWN } from "./transaction-context.ts";
import { unsupportedClient } from "./unsupported-client.ts";
import { wrapOnce } from "./wrap-once.ts";
import { getsContextAlone, type WrapOptions } from "./wrap-options.ts";

export type { WrapOptions } from "./wrap-options.ts";

/** What of Bun's `SQL` is replaced; everything else stays as it is. */
export interface BunSqlClient {
  // deno-lint-ignore no-explicit-any -- Bun's own types are kept by the type parameter of withBemi
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

/** Bun's `SQL` in any of its roles, loosely. */
interface Sql {
  (...args: unknown[]): unknown;
  unsafe(...args: unknown[]): BunQuery;
  file(...args: unknown[]): BunQuery;
  begin(...args: unknown[]): Promise<unknown>;
  beginDistributed(...args: unknown[]): Promise<unknown>;
  savepoint(...args: unknown[]): Promise<unknown>;
  reserve(): Promise<Sql>;
  release(): void;
}

/** Makes the same query once more. */
type Remake = (on: Sql) => BunQuery;

interface Asked {
  readonly query: BunQuery;
  /** Bun's own way to run it. */
  readonly send: () => unknown;
  readonly rest: unknown[];
  readonly context: () => string | undefined;
  readonly remake: Remake;
  /** Bun reads it when it runs: its text is not known. */
  readonly isFile: boolean;
}

/**
 * Wraps Bun's `sql`, or a `new SQL(…)`: a write made within a context carries it; outside one nothing changes.
 * A write outside a transaction gets one of its own, in the same round trip where statements are prepared.
 *
 * @throws {BemiError} `unsupported_client`
 * @example
 * ```ts
 * import { SQL } from "bun";
 * import { withBemi } from "@bemi/core/bun";
 * const sql = withBemi(new SQL("postgres://localhost/app"));
 * ```
 */
export function withBemi<S extends BunSqlClient>(sql: S, options: WrapOptions = {}): S {
  const access = typeof sql === "function" && typeof sql.reserve === "function" &&
    bunQueryAccess(sql.unsafe(""));
  if (!access) {
    throw unsupportedClient(sql, {
      subpath: "bun",
      takes: "Bun's own SQL client",
      hint: "Pass `sql` or `new SQL(…)` of Bun 1.2 or later.",
    });
  }
  return wrapOnce(sql, () => wrapPool(sql as unknown as Sql, access, options));
}

function wrapPool(sql: Sql, access: QueryAccess, options: WrapOptions): Sql {
  const run = (asked: Asked): unknown => {
    const context = contextAlone(asked, access, options);
    if (context === undefined) return asked.send();
    return runInTransaction(asked, context, access, async () => {
      const reserved = await sql.reserve();
      return { on: reserved, release: () => reserved.release() };
    });
  };
  return wrap(sql, access, run, {
    ...transactions(sql, access),
    reserve: async () => wrapReserved(await sql.reserve(), access, options),
  });
}

function transactions(sql: Sql, access: QueryAccess): Readonly<Record<string, unknown>> {
  const beginning = (name: "begin" | "beginDistributed") => (...args: unknown[]) =>
    sql[name](...bindCallback(args, (fn) => (tx) => fn(wrapTransaction(tx, access, { sent: "" }))));
  const [begin, beginDistributed] = [beginning("begin"), beginning("beginDistributed")];
  return { begin, transaction: begin, beginDistributed, distributed: beginDistributed };
}

/** Bun calls back from wherever a connection became free: the callback gets the caller's async context. */
function bindCallback(args: unknown[], wrapping: (fn: Callback) => Callback): unknown[] {
  return args.map((value) => typeof value === "function" ? wrapping(bindAsync(value as Callback)) : value);
}

const kindOf = ({ query, isFile }: Asked, access: QueryAccess): StatementKind =>
  isFile ? UNREAD : statementKind(access.text(query));

/** The context to run a query with in a transaction of its own, or `undefined` where it needs none. */
function contextAlone(asked: Asked, access: QueryAccess, options: WrapOptions): string | undefined {
  return getsContextAlone(kindOf(asked, access), options) ? asked.context() : undefined;
}

async function runInTransaction(
  { query, send, rest, remake, isFile }: Asked,
  context: string,
  access: QueryAccess,
  connect: () => Promise<{ readonly on: Sql; readonly release: () => void }>,
): Promise<unknown> {
  const { outcome, settle, restore } = access.holdBack(query);
  const connected = await connect().catch((error: unknown) => ({ error }));
  if ("error" in connected) return settle(connected);
  const { on, release } = connected;
  if (query.cancelled) {
    release();
    restore();
    return await send();
  }
  // Prepared statements, none of them awaited: Bun sends them in one flush.
  submit(on`begin`);
  submit(sendContext(on, context));
  // A file's handler is bound to the connection that it was made on.
  access.handler(isFile ? remake(on) : on.unsafe(""))(query, ...rest);
  if (isFile) await outcome;
  const commit = submit(on`commit`).then(() => undefined, (error: unknown) => ({ error }));
  const first = await outcome;
  const failed = await commit;
  if ("error" in first && refusesTransactions(first.error)) {
    warnOfBareRun();
    // Bun runs no query twice.
    const again = access.modified(remake(on), query);
    await again.then((value) => settle({ value }), (error: unknown) => settle({ error }));
    return release();
  }
  release();
  settle("error" in first ? first : failed ?? first);
}

function wrapTransaction(tx: Sql, access: QueryAccess, state: TransactionContext): Sql {
  const run = (asked: Asked): unknown => {
    sendAhead(tx, state, kindOf(asked, access), asked.context);
    return asked.send();
  };
  return wrap(tx, access, run, {
    savepoint: (...args: unknown[]) => {
      const guarded = (error: unknown): never => {
        state.sent = UNKNOWN;
        throw error;
      };
      const inner = (fn: Callback): Callback => (sp) => fn(wrapTransaction(sp, access, state));
      return tx.savepoint(...bindCallback(args, inner)).catch(guarded);
    },
  });
}

function sendAhead(
  sql: Sql,
  state: TransactionContext,
  kind: StatementKind,
  context: () => string | undefined,
): void {
  const ahead = contextAhead(state, kind, context);
  if (ahead !== undefined) submit(sendContext(sql, ahead));
}

function wrapReserved(sql: Sql, access: QueryAccess, options: WrapOptions): Sql {
  const state = { sent: "", isOpen: false };
  const run = (asked: Asked): unknown => {
    const kind = kindOf(asked, access);
    if (state.isOpen) {
      sendAhead(sql, state, kind, asked.context);
    } else {
      const context = kind.leaves ? undefined : contextAlone(asked, access, options);
      if (context !== undefined) {
        return runInTransaction(asked, context, access, () => Promise.resolve({ on: sql, release() {} }));
      }
    }
    if (kind.leaves) Object.assign(state, { isOpen: kind.leaves === "open", sent: "" });
    return asked.send();
  };
  return wrap(sql, access, run, transactions(sql, access));
}

const sendContext = (sql: Sql, context: string): unknown =>
  sql`select where set_config('bemi.context', ${context}, true) is null`;

/** Sends a query of our own at once; what it fails with, the statement behind it fails with too. */
function submit(made: unknown): Promise<unknown> {
  const query = made as BunQuery;
  query.execute();
  query.catch(() => {});
  return query;
}

function wrap(
  sql: Sql,
  access: QueryAccess,
  run: (asked: Asked) => unknown,
  replaced: Readonly<Record<string, unknown>>,
): Sql {
  const adopt = (remake: Remake, isFile = false): unknown => {
    const made = remake(sql);
    if (!access.isQuery(made)) return made;
    const handler = access.handler(made);
    const context = laterStatementContext();
    access.setHandler(made, (query, ...rest) => {
      const send = (): unknown => handler(query, ...rest);
      return run({ query, send, rest, context, remake, isFile });
    });
    return made;
  };
  const { members, traps } = replaceable<Sql>({
    unsafe: (...args: unknown[]) => adopt((on) => on.unsafe(...args)),
    file: (...args: unknown[]) => adopt((on) => on.file(...args), true),
    ...replaced,
  });
  return new Proxy(sql, {
    ...traps,
    apply: (_target, _this, args) => adopt((on) => on(...args) as BunQuery),
    get: (_target, name) => Object.hasOwn(members, name) ? members[name] : Reflect.get(sql, name) as unknown,
  });
}
