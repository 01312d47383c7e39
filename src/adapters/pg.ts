/**
 * node-postgres (`pg`), with the context of each write set for it.
 *
 * @module
 */
import { bindAsync } from "../context/bind-async.ts";
import { BemiError } from "../errors.ts";
import { type RawClient, wrapClient } from "./pg-client.ts";
import { type Own, replacing } from "./replacing.ts";

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

/** Options of {@linkcode withBemi}. */
export interface PgOptions {
  /**
   * Which statements outside a transaction get the context: those with a data-modifying keyword, or all, for
   * functions that write (`select complete_todo(1)`).
   * @default "writes"
   */
  readonly wrap?: "writes" | "all";
}

interface RawPool {
  connect(callback?: ConnectCallback): Promise<RawClient> | undefined;
  query(...args: unknown[]): unknown;
}

type Mode = "writes" | "all";

type ConnectCallback = (error: unknown, client: RawClient | undefined, release: unknown) => void;

const wrappers: WeakSet<object> = new WeakSet();

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
export function withBemi<C extends PgClient | PgModule>(client: C, options: PgOptions = {}): C {
  if (wrappers.has(client)) return client;
  const wrap = options.wrap ?? "writes";
  const wrapped = isModule(client)
    ? wrapModule(client, wrap)
    : "totalCount" in client
    ? wrapPool(client as unknown as RawPool, wrap)
    : wrapClient(asClient(client), wrap);
  wrappers.add(wrapped);
  return wrapped as unknown as C;
}

function isModule(client: object): client is PgModule {
  return "Pool" in client && "Client" in client;
}

function asClient(client: object): RawClient {
  if ("connection" in client && "query" in client) return client as RawClient;
  throw new BemiError("unsupported_client", "withBemi of @bemi/core/pg takes a Pool or a Client of pg", {
    hint: "Pass what new pg.Pool(…) returns; pg's native bindings cannot be wrapped.",
  });
}

function wrapPool(pool: RawPool, mode: Mode): RawPool {
  const wrap = (client: RawClient): RawClient => wrapClient(asClient(client), mode);
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

function wrapModule(module: PgModule, wrap: Mode): PgModule {
  const wrapping = <T extends PgModule["Pool"]>(made: T): T =>
    new Proxy(made, {
      construct: (target, args, self) =>
        withBemi(Reflect.construct(target, args, self) as PgClient, { wrap }),
    });
  return replacing(module, { Pool: wrapping(module.Pool), Client: wrapping(module.Client) });
}
