/**
 * Supabase and PostgREST: the context travels in a header of the request. Runs in browsers as well.
 *
 * @module
 */
import { contextText } from "../context/context-text.ts";
import type { Context, ContextLike } from "../context/mod.ts";

/** Servers limit all headers of a request together, usually to 8 KB or 16 KB. */
const MAX_HEADER_BYTES = 4096;

/**
 * Headers that carry a context to the database, for supabase-js, postgrest-js or a plain `fetch`. It is stored under
 * `client`, beside the verified claims under `jwt`: whoever holds the browser can write there what it likes.
 *
 * Never throws: values that JSON cannot hold are left out, and of a context past 4 KB the largest keys, whose names are
 * then in `bemi_dropped`. A header is ASCII; other characters are escaped in its JSON.
 *
 * @returns `{ "x-bemi-context": … }`, or no header where there is no context
 *
 * @example
 * ```ts
 * import { contextHeaders } from "@bemi/core/supabase";
 * await fetch("https://project.supabase.co/rest/v1/todos", {
 *   method: "POST",
 *   headers: { "content-type": "application/json", ...contextHeaders({ page: "/todos" }) },
 *   body: JSON.stringify({ task: "Sleep" }),
 * });
 * ```
 */
export function contextHeaders(context: ContextLike): { "x-bemi-context": string };
/** As above, where there may be no context. */
export function contextHeaders(context: ContextLike | undefined): Record<string, string>;
export function contextHeaders(context: ContextLike | undefined): Record<string, string> {
  if (typeof context !== "object" || context === null || Array.isArray(context)) return {};
  return { "x-bemi-context": contextText(context as Context, { maxBytes: MAX_HEADER_BYTES, isAscii: true }) };
}
