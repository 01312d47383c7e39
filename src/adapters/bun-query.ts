/** A lazy query of Bun's SQL client: what of its inner life is used here. */
export interface BunQuery extends Promise<unknown> {
  execute(): BunQuery;
  resolve: (value: unknown) => unknown;
  reject: (error: unknown) => unknown;
  readonly cancelled: boolean;
}

/** What sends a query on its way; each kind of `sql` (pool, transaction, reserved) has its own. */
export type Handler = (query: BunQuery, ...rest: unknown[]) => unknown;

export type Outcome = { readonly value: unknown } | { readonly error: unknown };

/** Bun keeps its queries' members under symbols of its own. */
export interface QueryAccess {
  isQuery(value: unknown): value is BunQuery;
  /** The statement's words: nested fragments in their places, a `?` for each value. */
  text(query: BunQuery): string;
  handler(query: BunQuery): Handler;
  setHandler(query: BunQuery, handler: Handler): void;
  /** Gives a query what `values()`, `raw()` or `simple()` gave another. */
  modified(query: BunQuery, as: BunQuery): BunQuery;
  /** Keeps back how a query ends, until `settle`. */
  holdBack(
    query: BunQuery,
  ): { outcome: Promise<Outcome>; settle: (outcome: Outcome) => void; restore: () => void };
}

/** Finds the symbols in a query; `undefined` where it is none of Bun's. */
export function bunQueryAccess(sample: object): QueryAccess | undefined {
  const [handler, strings, values, flags] = ["handler", "strings", "values", "flags"].map((name) =>
    Object.getOwnPropertySymbols(sample).find((own) => own.description === name)
  );
  if (!handler || !strings || !values || !flags) return undefined;
  const get = (query: object, name: symbol): unknown => Reflect.get(query, name);
  const access: QueryAccess = {
    isQuery: (value): value is BunQuery => value instanceof Promise && handler in value,
    text: (query) => {
      const texts = get(query, strings) as string | readonly string[];
      if (typeof texts === "string") return texts;
      const nested = get(query, values) as readonly unknown[];
      return texts.reduce((text, part, n) => {
        const value = nested[n - 1];
        return `${text}${access.isQuery(value) ? access.text(value) : " ? "}${part}`;
      });
    },
    handler: (query) => get(query, handler) as Handler,
    setHandler: (query, replacement) => void Reflect.set(query, handler, replacement),
    modified: (query, as) => {
      Reflect.set(query, flags, get(as, flags));
      return query;
    },
    holdBack: (query) => {
      let done: (outcome: Outcome) => void = () => {};
      const outcome = new Promise<Outcome>((settled) => done = settled);
      // Over the methods of its class.
      query.resolve = (value) => done({ value });
      query.reject = (error) => done({ error });
      const restore = (): void => {
        for (const name of ["resolve", "reject"]) Reflect.deleteProperty(query, name);
      };
      const settle = (result: Outcome): void => {
        restore();
        if ("error" in result) query.reject(result.error);
        else query.resolve(result.value);
      };
      return { outcome, settle, restore };
    },
  };
  return access;
}
