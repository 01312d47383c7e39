/**
 * Middleware for Bun.serve: its `fetch`, and its `routes`. Websocket handlers need none: use `withContext` in them.
 *
 * @module
 */
import type { ContextLike } from "../context/scope.ts";
import { withRequestContext } from "./request-context.ts";

/** A `fetch` of Bun.serve, or the handler of one route. */
// deno-lint-ignore no-explicit-any -- Bun's types differ from version to version: the handler's own are kept
export type BunHandler = (request: any, server: any) => unknown;

/** The `routes` of Bun.serve: a path to a handler, to handlers by method, or to what is served as it is. */
export type BunRoutes = { readonly [path: string]: unknown };

/** What a handler takes for a request; a plain one where it takes none, or anything. */
export type RequestOf<T> = T extends (request: infer R extends Request, ...rest: never) => unknown ? R
  : Request;

/**
 * Every write that a handler makes carries what `fn` says of the request, with the `traceparent` and `request_id`
 * that the request came with. `fn` runs once, at the first write. If it throws, that is reported and the request goes on.
 *
 * @example
 * ```ts
 * import { bemi } from "@bemi/core/bun";
 * const context = (request: Request) => ({ method: request.method, endpoint: new URL(request.url).pathname });
 * const server = {
 *   fetch: bemi((request: Request) => new Response(request.url), context),
 *   routes: bemi({ "/todos": { POST: () => new Response("created") } }, context),
 * }; // Bun.serve(server)
 * ```
 */
export function bemi<T extends BunHandler | BunRoutes>(
  handlers: T,
  fn: (request: RequestOf<T>) => ContextLike,
): T {
  const context = fn as (request: Request) => ContextLike;
  return (typeof handlers === "function"
    ? wrapHandler(handlers as BunHandler, context)
    : mapValues(handlers, (route) => wrapRoute(route, context))) as T;
}

function wrapRoute(route: unknown, fn: (request: Request) => ContextLike): unknown {
  if (typeof route === "function") return wrapHandler(route as BunHandler, fn);
  const isByMethod = typeof route === "object" && route !== null &&
    Object.getPrototypeOf(route) === Object.prototype;
  if (!isByMethod) return route;
  return mapValues(
    route,
    (handler) => typeof handler === "function" ? wrapHandler(handler as BunHandler, fn) : handler,
  );
}

function wrapHandler(handler: BunHandler, fn: (request: Request) => ContextLike): BunHandler {
  return function bemi(this: unknown, request: Request, server: unknown) {
    return withRequestContext(
      { header: (name) => request.headers.get(name), context: () => fn(request) },
      () => handler.call(this, request, server),
    );
  };
}

function mapValues(object: object, fn: (value: unknown) => unknown): Record<string, unknown> {
  return Object.fromEntries(Object.entries(object).map(([key, value]) => [key, fn(value)]));
}
