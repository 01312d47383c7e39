/**
 * Middleware for Express, Connect, and all that calls `(request, response, next)`.
 *
 * @module
 */
import { bindAsync } from "../context/bind-async.ts";
import type { ContextLike } from "../context/scope.ts";
import { withRequestContext } from "./request-context.ts";

/** What of a Node request is read here. */
interface NodeRequest {
  readonly headers?: { readonly [name: string]: string | readonly string[] | undefined };
}

/** A middleware as Express 4 and 5 and Connect take it. */
export type ConnectMiddleware<R> = (request: R, response: unknown, next: (error?: unknown) => void) => void;

/**
 * Every write that a request makes carries what `fn` says of it, with the `traceparent` and `request_id` that the
 * request came with. `fn` runs once, at the first write, and so after authentication, wherever the middleware stands.
 * If it throws, that is reported and the request goes on.
 *
 * @example
 * ```ts
 * import express from "express";
 * import { bemi } from "@bemi/core/express";
 * const app = express();
 * app.use(bemi((request) => ({ method: request.method, endpoint: request.path })));
 * ```
 */
export function bemi<R extends object>(fn: (request: R) => ContextLike): ConnectMiddleware<R> {
  return function bemi(request, response, next) {
    const header = (name: string): string | undefined => {
      const value = (request as NodeRequest).headers?.[name];
      return typeof value === "string" ? value : undefined;
    };
    withRequestContext({ header, context: () => fn(request) }, () => {
      bindEvents(request);
      bindEvents(response);
      return next();
    }).catch(next);
  };
}

/** A request's events come from its socket, those of a body say, which is read before an upload's handler runs. */
function bindEvents(emitter: unknown): void {
  const { emit } = (emitter ?? {}) as { emit?: (...args: unknown[]) => unknown };
  if (emit) Object.assign(emitter as object, { emit: bindAsync(emit.bind(emitter)) });
}
