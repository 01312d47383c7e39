import { BemiError } from "../errors.ts";
import type {
  Database,
  DatabaseLike,
  PgClientLike,
  PgliteLike,
  PgPoolLike,
  PostgresLike,
  QueryOptions,
} from "./port.ts";

/**
 * Sees a client, by its shape, as a {@linkcode Database}.
 *
 * @throws {BemiError} `unsupported_client`
 */
export function connect(db: DatabaseLike): Database {
  const client = (db ?? {}) as unknown as Readonly<Record<string, unknown>>;
  // Neon's function over HTTP has an `unsafe` too, but no transaction that waits for an answer.
  const isHttp = typeof client.transaction === "function" && client.begin === undefined &&
    typeof db === "function";
  if (typeof client.unsafe === "function" && !isHttp) return fromPostgres(db as PostgresLike);
  if (typeof client.query === "function" && !isHttp) {
    if (typeof client.exec === "function") return fromPglite(db as PgliteLike);
    if (typeof client.totalCount === "number") return fromPool(db as PgPoolLike);
    // pg would keep its queries back until somebody connects.
    if (client._connected === false && client._connecting === false) {
      throw new BemiError("connection_failed", "This client of pg is not connected", {
        hint: "Call `await client.connect()` first, or pass a Pool.",
      });
    }
    return fromClient(db as PgClientLike);
  }
  throw new BemiError("unsupported_client", "This is no database client that Bemi knows", {
    hint: isHttp ? "Pass a Pool or Client of Neon's, which keeps a connection." : hintOf(client),
  });
}

function hintOf(client: Readonly<Record<string, unknown>>): string {
  if (typeof client.then === "function") return "It is a promise: await it first.";
  if (client.$client !== undefined) return "Pass the client of this drizzle database: db.$client.";
  return "Pass a postgres.js Sql, Bun's SQL, a PGlite, or a Pool or Client of pg or Neon.";
}

/**
 * Runs `fn` within one transaction, with the client of that transaction: of the same kind as the one passed in, as the
 * application's own queries take it.
 *
 * @throws {BemiError} `unsupported_client`
 */
export async function inTransaction<R>(
  db: DatabaseLike,
  fn: (client: DatabaseLike, port: Database) => Promise<R>,
): Promise<R> {
  const port = connect(db);
  const client = db as Partial<PostgresLike & PgliteLike & PgPoolLike>;
  const begin = client.begin ?? client.savepoint ?? client.transaction;
  if (begin) {
    return await begin.call(db, (tx: DatabaseLike) => fn(tx, connect(tx))) as R;
  }
  if (typeof client.connect === "function" && typeof client.totalCount === "number") {
    const one = await client.connect();
    let broken = true;
    try {
      const result = await fromClient(one).transaction(() => fn(one, fromClient(one)));
      broken = false;
      return result;
    } finally {
      one.release(broken);
    }
  }
  return await port.transaction((tx) => fn(db, tx));
}

function fromPostgres(sql: PostgresLike): Database {
  return {
    query: async <Row extends object>(
      text: string,
      parameters: readonly (string | null)[] = [],
      { isKept = false }: QueryOptions = {},
    ) =>
      [
        ...await (isKept
          ? sql.unsafe(text, [...parameters], { prepare: true })
          : sql.unsafe(text, [...parameters])),
      ] as Row[],
    execute: async (text) => {
      await sql.unsafe(text);
    },
    transaction: async <R>(fn: (tx: Database) => Promise<R>) => {
      const begin = sql.begin ?? sql.savepoint;
      if (!begin) return await fn(fromPostgres(sql));
      return await begin.call(sql, (tx: PostgresLike) => fn(fromPostgres(tx))) as R;
    },
  };
}

function fromPglite(db: PgliteLike): Database {
  return {
    query: async <Row extends object>(text: string, parameters: readonly (string | null)[] = []) =>
      (await db.query(text, [...parameters])).rows as Row[],
    execute: async (text) => {
      await db.exec(text);
    },
    transaction: async <R>(fn: (tx: Database) => Promise<R>) =>
      db.transaction
        ? await db.transaction((tx: PgliteLike) => fn(fromPglite(tx))) as R
        : await fn(fromPglite(db)),
  };
}

function fromClient(client: PgClientLike): Database {
  const database: Database = {
    query: async <Row extends object>(text: string, parameters: readonly (string | null)[] = []) =>
      (await client.query(text, [...parameters])).rows as Row[],
    execute: async (text) => {
      await client.query(text);
    },
    transaction: async (fn) => {
      await client.query("begin");
      try {
        const result = await fn(database);
        await client.query("commit");
        return result;
      } catch (error) {
        // Where the connection is gone that fails too, and says less.
        await client.query("rollback").catch(() => {});
        throw error;
      }
    },
  };
  return database;
}

function fromPool(pool: PgPoolLike): Database {
  return {
    ...fromClient(pool),
    transaction: async (fn) => {
      const client = await pool.connect();
      let broken = false;
      try {
        return await fromClient(client).transaction(fn);
      } catch (error) {
        broken = true;
        throw error;
      } finally {
        client.release(broken);
      }
    },
  };
}
