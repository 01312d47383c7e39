/**
 * Middleware for Hono.
 *
 * @module
 */
import type { Context as HonoContext, Env, MiddlewareHandler } from "hono";
import type { ContextLike } from "../context/scope.ts";
import { withRequestContext } from "./request-context.ts";

/**
 * Every write that a request makes carries what `fn` says of it, with the `traceparent` and `request_id` that the
 * request came with. `fn` runs once, at the first write, and so after authentication, wherever the middleware stands.
 * If it throws, that is reported and the request goes on. Write `bemi<AppEnv>(…)` to have `c.get` typed.
 *
 * @example
 * ```ts
 * import { Hono } from "hono";
 * import { bemi } from "@bemi/core/hono";
 * const app = new Hono();
 * app.use(bemi((c) => ({ method: c.req.method, endpoint: c.req.path })));
 * ```
 */
// deno-lint-ignore no-explicit-any -- as Hono's own middleware: the app's Env is inferred where it is used
export function bemi<E extends Env = any>(fn: (c: HonoContext<E>) => ContextLike): MiddlewareHandler<E> {
  return async function bemi(c, next) {
    await withRequestContext({ header: (name) => c.req.header(name), context: () => fn(c) }, next);
  };
}
