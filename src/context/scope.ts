import { AsyncLocalStorage } from "node:async_hooks";
import { warn } from "./warn.ts";

/** Who, where and how: any JSON object. Values that JSON cannot hold are left out, bigints become strings. */
export type Context = { readonly [key: string]: unknown };

/** What is taken for a context: also an object whose type is an interface. A promise is none. */
export type ContextLike = Context | (object & { readonly then?: never });

/** Options of {@linkcode withContext}. */
export interface ContextOptions {
  /**
   * Whether the new context adds to the one around it or stands alone.
   * @default "merge"
   */
  readonly mode?: "merge" | "replace";
}

/** One scope's own cell. Only {@linkcode mergeContext} changes it, and a change drops the cached `text`. */
interface Scope {
  readonly outer: Scope | undefined;
  /** Set until the first look: middleware is asked for its context as late as possible. */
  provider: (() => ContextLike) | undefined;
  own: Context;
  revision: number;
}

const storage: AsyncLocalStorage<Scope> = new AsyncLocalStorage();

/**
 * Runs `fn` with a context: every write made within, however deep in the call tree, carries it.
 * What `fn` returns is awaited inside the scope, since the queries of most drivers are lazy.
 *
 * @example
 * ```ts
 * import { withContext } from "@bemi/core";
 * await withContext({ user_id: 42 }, () => Promise.resolve());
 * ```
 */
export function withContext<R>(
  context: ContextLike,
  fn: () => R,
  options: ContextOptions = {},
): Promise<Awaited<R>> {
  return inScope({ provider: undefined, own: usableContext(context) }, fn, options);
}

/** As {@linkcode withContext}, but `provider` is called at the first write within, once. */
export function withLazyContext<R>(
  provider: () => ContextLike,
  fn: () => R,
  options: ContextOptions = {},
): Promise<Awaited<R>> {
  return inScope({ provider, own: {} }, fn, options);
}

/**
 * The context in force here, merged from all scopes around, or `undefined` outside one.
 *
 * @example
 * ```ts
 * import { currentContext, withContext } from "@bemi/core";
 * await withContext({ user_id: 42 }, () => console.log(currentContext())); // { user_id: 42 }
 * ```
 */
export function currentContext(): Context | undefined {
  const scope = storage.getStore();
  return scope && merged(scope);
}

/**
 * Adds to the context of the innermost scope, for all that follows in it; does nothing outside one.
 *
 * @example
 * ```ts
 * import { mergeContext, withContext } from "@bemi/core";
 * await withContext({ job: "nightly" }, () => {
 *   mergeContext({ step: "import" });
 *   // every write from here on carries both
 * });
 * ```
 */
export function mergeContext(patch: ContextLike): void {
  const scope = storage.getStore();
  if (!scope) return;
  resolve(scope);
  scope.own = joined(scope.own, usableContext(patch));
  scope.revision++;
}

/** `fn`, run in the scope that is entered now; `fn` itself outside one. Only the scope is kept, nothing else asynchronous. */
export function bindToScope<R>(fn: () => R): () => R {
  const scope = storage.getStore();
  return scope ? () => storage.run(scope, fn) : fn;
}

/** A key that changes whenever the context in force does. For caches. */
export function scopeKey(): readonly [object, number] | undefined {
  const scope = storage.getStore();
  if (!scope) return undefined;
  let revision = 0;
  for (let s: Scope | undefined = scope; s; s = s.outer) revision += s.revision;
  return [scope, revision];
}

function inScope<R>(
  { provider, own }: Pick<Scope, "provider" | "own">,
  fn: () => R,
  options: ContextOptions,
): Promise<Awaited<R>> {
  const outer = options.mode === "replace" ? undefined : storage.getStore();
  // No spread: it would cost three times as much as all else here.
  return storage.run({ outer, provider, own, revision: 0 }, async (): Promise<Awaited<R>> => await fn());
}

function merged(scope: Scope): Context {
  resolve(scope);
  return scope.outer ? joined(merged(scope.outer), scope.own) : scope.own;
}

function joined(outer: Context, inner: Context): Context {
  try {
    return { ...outer, ...inner };
  } catch {
    // A getter that throws stays one: it is left out where a statement's text is made.
    const members = Object.getOwnPropertyDescriptors;
    return Object.defineProperties({}, { ...members(outer), ...members(inner) }) as Context;
  }
}

function resolve(scope: Scope): void {
  const provider = scope.provider;
  if (!provider) return;
  // First, so that a provider which itself writes or reads the context does not call itself again.
  scope.provider = undefined;
  try {
    scope.own = joined(usableContext(provider()), scope.own);
    // What the provider itself wrote has made a text without it.
    scope.revision++;
  } catch (error) {
    warn("the context function threw: the request goes on without its context", error);
  }
}

/** The context itself if it is one; anything else is warned of, and is empty. */
export function usableContext(context: ContextLike): Context {
  if (typeof context === "object" && context !== null && !Array.isArray(context)) {
    if (!("then" in context && typeof (context as Context).then === "function")) return context as Context;
    warn("a context function must not be asynchronous: its promise was ignored");
    (context as unknown as Promise<unknown>).then(undefined, () => {});
    return {};
  }
  warn(`a context must be an object, not ${context === null ? "null" : typeof context}: it was ignored`);
  return {};
}
