import { type Context, type ContextLike, usableContext, withLazyContext } from "../context/scope.ts";

/** W3C Trace Context, version 00: ids of all zeros are invalid. */
const TRACEPARENT = /^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/;

/** What proxies and hosts send as a request id: printable, without blanks, and not long. */
const REQUEST_ID = /^[\w.:=+/-]{1,128}$/;

type Header = (name: string) => string | null | undefined;

/** Handles a request in the context that `context` gives, with what its headers name; looked at by the first write. */
export function withRequestContext<R>(
  request: { readonly header: Header; readonly context: () => ContextLike },
  handle: () => R,
): Promise<Awaited<R>> {
  return withLazyContext(() => ({ ...traceOf(request.header), ...usableContext(request.context()) }), handle);
}

/** The trace and the request that a write belongs to, where the request names them validly. */
function traceOf(header: Header): Context {
  const traceparent = header("traceparent");
  const requestId = header("x-request-id");
  return {
    ...(traceparent && TRACEPARENT.test(traceparent) ? { traceparent } : {}),
    ...(requestId && REQUEST_ID.test(requestId) ? { request_id: requestId } : {}),
  };
}
