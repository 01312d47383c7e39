import { BemiError } from "../errors.ts";

type Shape = (client: Readonly<Record<string, unknown>>) => boolean;

const has = (...names: readonly string[]): Shape => (client) => names.every((name) => name in client);

/** What else people pass to a `withBemi`, and what they mean. The first that fits counts. */
const MISTAKEN: readonly (readonly [fits: Shape, remedy: string])[] = [
  [has("then"), "It is a promise: await it first."],
  [has("$client"), "A database of drizzle-orm has a withBemi of its own in @bemi/core/drizzle."],
  [
    has("$extends"),
    "Prisma takes a wrapped pool: new PrismaClient({ adapter: new PrismaPg(withBemi(pool)) }).",
  ],
  [
    has("getExecutor"),
    "Kysely takes a wrapped pool: new PostgresDialect({ pool: withBemi(pool) }); or has a withBemi of its own in @bemi/core/kysely.",
  ],
  [
    has("createQueryRunner"),
    'TypeORM takes the wrapped module: new DataSource({ type: "postgres", driver: withBemi(pg) }).',
  ],
  [
    has("begin", "reserve", "PostgresError"),
    "A client of postgres.js has a withBemi of its own in @bemi/core/postgres.",
  ],
  [has("begin", "reserve", "unsafe"), "Bun's SQL has a withBemi of its own in @bemi/core/bun."],
  [has("exec", "query", "transaction"), "PGlite has a withBemi of its own in @bemi/core/pglite."],
  [has("query", "transaction"), "What neon(…) returns has a withBemi of its own in @bemi/core/neon."],
  [has("Pool", "Client"), "The module pg has a withBemi of its own in @bemi/core/pg."],
  [has("query", "connect"), "A Pool or Client of pg has a withBemi of its own in @bemi/core/pg."],
];

/**
 * The error of a `withBemi` that was given what it cannot wrap, with the remedy for what that seems to be.
 *
 * @param options.hint the remedy where it seems to be nothing known
 */
export function unsupportedClient(
  given: unknown,
  { subpath, takes, hint }: { readonly subpath: string; readonly takes: string; readonly hint: string },
): BemiError {
  const isObject = typeof given === "object" && given !== null || typeof given === "function";
  const [, remedy] =
    MISTAKEN.find(([fits, remedy]) =>
      isObject && !remedy.endsWith(`@bemi/core/${subpath}.`) && fits(given as Record<string, unknown>)
    ) ?? [];
  return new BemiError("unsupported_client", `withBemi of @bemi/core/${subpath} takes ${takes}`, {
    hint: remedy ?? hint,
  });
}
