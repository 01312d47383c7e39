/**
 * Middleware for any `(Request) => Response`: Deno.serve, Workers, route handlers.
 *
 * @module
 */
import type { ContextLike } from "../context/scope.ts";
import { withRequestContext } from "./request-context.ts";

/** A handler of Web requests, with whatever else its host passes along. */
export type FetchHandler<Rest extends unknown[]> = (
  request: Request,
  ...rest: Rest
) => Response | Promise<Response>;

/**
 * Every write that the handler makes carries what `fn` says of the request. `fn` runs once, at the first write.
 *
 * @example
 * ```ts
 * import { bemi } from "@bemi/core/fetch";
 * const handler = bemi(() => new Response("ok"), (request) => ({ method: request.method }));
 * ```
 */
export function bemi<Rest extends unknown[]>(
  handler: FetchHandler<Rest>,
  fn: (request: Request, ...rest: Rest) => ContextLike,
): (request: Request, ...rest: Rest) => Promise<Response> {
  return function bemi(request, ...rest) {
    return withRequestContext(
      { header: (name) => request.headers.get(name), context: () => fn(request, ...rest) },
      () => handler(request, ...rest),
    );
  };
}
