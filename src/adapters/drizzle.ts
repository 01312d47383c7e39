/**
 * A drizzle database that made its own client, with the context of each write set for it.
 *
 * @module
 */
import { bunQueryAccess } from "./bun-query.ts";
import { type BunSqlClient, withBemi as withBunSql } from "./bun-sql.ts";
import { type NeonHttpClient, withBemi as withNeon } from "./neon.ts";
import type { PgClient } from "./pg.ts";
import { type PgliteClient, withBemi as withPglite } from "./pglite.ts";
import { type PostgresClient, withBemi as withPostgres } from "./postgres.ts";
import { unsupportedClient } from "./unsupported-client.ts";
import type { WrapOptions } from "./wrap-options.ts";

export type { WrapOptions } from "./wrap-options.ts";

/** What of a drizzle database is replaced; everything else stays as it is. */
export interface DrizzleDatabase {
  /** The client of a database that drizzle-orm made over postgres.js, node-postgres, PGlite, Bun's SQL or Neon. */
  readonly $client: unknown;
}

/** As drizzle's own properties are: its `$withAuth` puts others in their place. */
const CHANGEABLE = { configurable: true, writable: true };

/**
 * Wraps a drizzle database: a write made within a context carries it; outside one nothing changes. It is the same as
 * to give drizzle a wrapped client, for where drizzle makes the client itself.
 *
 * @throws {BemiError} `unsupported_client`
 * @example
 * ```ts
 * import { drizzle } from "drizzle-orm/node-postgres";
 * import { withBemi } from "@bemi/core/drizzle";
 * const db = withBemi(drizzle("postgres://localhost/app"));
 * ```
 */
export function withBemi<D extends DrizzleDatabase>(db: D, options: WrapOptions = {}): D {
  const { session } = (db ?? {}) as { session?: object };
  if (!session || !("client" in session) || !isObject(db.$client)) {
    throw unsupportedClient(db, {
      subpath: "drizzle",
      takes: "a database of drizzle-orm",
      hint: "Pass what drizzle(…) returns for postgres.js, node-postgres, PGlite, Bun's SQL or Neon.",
    });
  }
  const client = wrapClient(db.$client, options);
  // All that drizzle sends goes by its session's client.
  return Object.create(db, {
    $client: { ...CHANGEABLE, value: client, enumerable: true },
    session: {
      ...CHANGEABLE,
      value: Object.create(session, { client: { ...CHANGEABLE, value: client } }),
    },
  }) as D;
}

function wrapClient(client: object, options: WrapOptions): unknown {
  if (typeof client === "function" && "reserve" in client) {
    const sql = client as unknown as PostgresClient & BunSqlClient;
    return bunQueryAccess(sql.unsafe("")) ? withBunSql(sql, options) : withPostgres(sql, options);
  }
  if ("exec" in client) return withPglite(client as PgliteClient, options);
  // Neon's driver over HTTP, or what is as pg's: pg itself, and Neon's over WebSockets.
  return withNeon(client as NeonHttpClient | PgClient, options);
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null || typeof value === "function";
}
