/**
 * node-postgres (`pg`), with the context of each write set for it.
 *
 * @module
 */
import { bindAsync } from "../context/bind-async.ts";
import type { BemiError } from "../errors.ts";
import { type RawClient, wrapClient } from "./pg-client.ts";
import { type Own, replacing } from "./replacing.ts";
import { unsupportedClient } from "./unsupported-client.ts";
import { wrapOnce } from "./wrap-once.ts";
import type { WrapOptions } from "./wrap-options.ts";

export type { WrapOptions } from "./wrap-options.ts";

/** What of a pg `Pool` or `Client` is replaced; everything else stays as it is. */
export interface PgClient {
  /** Runs a statement, a cursor or a stream. */
  // deno-lint-ignore no-explicit-any -- the driver's own types are kept by the type parameter of withBemi
  query(...args: any[]): any;
  /** Connects, or takes a connection out of the pool. */
  // deno-lint-ignore no-explicit-any
  connect(...args: any[]): any;
}

/** The module `pg` itself, for libraries that make their own pool of it. */
export interface PgModule {
  /** The class of pools. */
  // deno-lint-ignore no-explicit-any
  readonly Pool: new (...args: any[]) => any;
  /** The class of single connections. */
  // deno-lint-ignore no-explicit-any
  readonly Client: new (...args: any[]) => any;
}

interface RawPool {
  connect(callback?: ConnectCallback): Promise<RawClient> | undefined;
  query(...args: unknown[]): unknown;
}

type ConnectCallback = (error: unknown, client: RawClient | undefined, release: unknown) => void;

/**
 * Wraps a pg `Pool` or `Client`, or the module `pg`: a write made within a context carries it; outside one nothing
 * changes. The context of a single write travels in the same round trip, and ends with its transaction.
 *
 * @throws {BemiError} `unsupported_client`
 * @example
 * ```ts
 * import pg from "pg";
 * import { withBemi } from "@bemi/core/pg";
 * const pool = withBemi(new pg.Pool());
 * ```
 */
export function withBemi<C extends PgClient | PgModule>(client: C, options: WrapOptions = {}): C {
  if (typeof client !== "object" && typeof client !== "function" || client === null) {
    throw unsupported(client);
  }
  return wrapOnce(client, () => {
    if (isModule(client)) return wrapModule(client, options);
    if ("totalCount" in client) return wrapPool(client as unknown as RawPool, options);
    return wrapClient(asClient(client), options);
  });
}

function isModule(client: object): client is PgModule {
  return "Pool" in client && "Client" in client;
}

function asClient(client: object): RawClient {
  if ("connection" in client && "query" in client) return client as RawClient;
  throw unsupported(client);
}

const unsupported = (client: unknown): BemiError =>
  unsupportedClient(client, {
    subpath: "pg",
    takes: "a Pool or a Client of pg, or the module",
    hint: "Pass what new pg.Pool(…) returns; pg's native bindings cannot be wrapped.",
  });

function wrapPool(pool: RawPool, options: WrapOptions): RawPool {
  const wrap = (client: RawClient): RawClient => wrapClient(asClient(client), options);
  const own: Own = {
    connect: (callback?: ConnectCallback) => {
      if (!callback) return pool.connect()?.then(wrap);
      // A pool calls back from wherever a connection became free: within another request.
      const bound = bindAsync(callback);
      return pool.connect((error, client, release) => bound(error, client && wrap(client), release));
    },
    // pg's own, which takes its connection from the wrapper.
    query: (...args: unknown[]) => pool.query.apply(wrapped, args),
  };
  const wrapped = replacing(pool, own);
  return wrapped;
}

function wrapModule(module: PgModule, options: WrapOptions): PgModule {
  const wrapping = <T extends PgModule["Pool"]>(made: T): T =>
    new Proxy(made, {
      construct: (target, args, self) => withBemi(Reflect.construct(target, args, self) as PgClient, options),
    });
  return replacing(module, { Pool: wrapping(module.Pool), Client: wrapping(module.Client) });
}
