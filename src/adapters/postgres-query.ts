import { bindAsync } from "../context/bind-async.ts";

/** A lazy query of postgres.js 3: what of its inner life is used here. */
export interface Query extends Promise<unknown> {
  strings: ArrayLike<string> & { readonly raw?: readonly string[] };
  /** The backend that it was executed on, once it was. */
  readonly state: object | null;
  readonly args: readonly unknown[];
  handler: Handler;
  resolve: (value: unknown) => void;
  reject: (error: unknown) => void;
  readonly tagged: boolean;
  executed: boolean;
  active: boolean;
  cancelled: unknown;
  readonly streaming?: boolean;
  readonly onlyDescribe?: boolean;
  readonly string?: string;
  readonly parameters?: readonly unknown[];
  readonly origin: string;
  forEachFn?: (...args: unknown[]) => unknown;
  cursorFn?: (...args: unknown[]) => unknown;
}

/** What sends a query on its way; each kind of `sql` (pool, transaction, reserved) has its own. */
export type Handler = ((query: Query) => void) & { debug?: unknown };

export function isQuery(value: unknown): value is Query {
  return value instanceof Promise && "handler" in value && typeof value.handler === "function" &&
    "strings" in value;
}

/** The statement's words: nested fragments in their places, a `?` for each value. */
export function queryText(query: Query): string {
  const { strings, args } = query;
  let text = strings[0] ?? "";
  for (let i = 1; i < strings.length; i++) text += fragmentText(args[i - 1]) + strings[i];
  return text;
}

function fragmentText(value: unknown): string {
  if (isQuery(value)) return queryText(value);
  if (Array.isArray(value) && value.some(isQuery)) return value.map(fragmentText).join(" ");
  return " ? ";
}

/** Sends a query of our own at once, not a microtask later as `then` does, so that it stays ahead of what follows. */
export function submit(query: Query): Query {
  query.executed = true;
  Promise.prototype.catch.call(query, () => {});
  query.handler(query);
  return query;
}

/**
 * Gives queries accessors by a prototype between them and their class, the same for all of a kind. Defined on the query
 * they would give each a shape of its own, and the driver then takes half as long again for a write.
 */
export function withAccessors(accessors: PropertyDescriptorMap): (query: Query) => void {
  const prototypes: WeakMap<object, object> = new WeakMap();
  return (query) => {
    const own = Object.getPrototypeOf(query) as object;
    const prototype = prototypes.get(own) ?? Object.create(own, accessors) as object;
    prototypes.set(own, prototype);
    Object.setPrototypeOf(query, prototype);
  };
}

/** Callbacks of `forEach` and `cursor` are called from the socket's events: they get the caller's async context. */
export function bindCallbacks(query: Query): void {
  if (query.forEachFn) query.forEachFn = bindAsync(query.forEachFn);
  if (query.cursorFn) query.cursorFn = bindAsync(query.cursorFn);
}

const origins: WeakMap<object, Error> = new WeakMap();
let originSymbol: symbol | undefined;

/**
 * The driver finds the caller's line by a short stack of its own, in which the wrapper's frame would take the caller's
 * place: this puts in one that begins with the caller.
 */
export function keepOrigin(query: Query, wrapper: (...args: never[]) => unknown): void {
  if (!query.tagged) return;
  originSymbol ??= Object.getOwnPropertySymbols(query).find((own) => own.description === "OriginError");
  if (!originSymbol) return;
  let origin = origins.get(query.strings);
  if (!origin) {
    origin = new Error();
    Error.captureStackTrace?.(origin, wrapper);
    origins.set(query.strings, origin);
  }
  (query as unknown as Record<symbol, Error>)[originSymbol] = origin;
}
