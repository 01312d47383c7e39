/**
 * What Bemi itself needs of a database client, whatever the client.
 * Parameters travel as text and are cast in the SQL (`$1::text::jsonb`), so that every driver sends the same.
 */
export interface Database {
  /** Runs one statement, and gives its rows. */
  query<Row extends object>(
    text: string,
    parameters?: readonly (string | null)[],
    options?: QueryOptions,
  ): Promise<Row[]>;
  /** Several statements in one string, without parameters or results. */
  execute(sql: string): Promise<void>;
  /** Runs a function in a transaction, or in a savepoint of one. */
  transaction<R>(fn: (tx: Database) => Promise<R>): Promise<R>;
}

/** How a statement is run. */
export interface QueryOptions {
  /**
   * Whether the server may keep it prepared: for one that runs again and again with one text, and whose columns no DDL
   * changes. Only where the client says whether its connections are its own, as postgres.js does by its `prepare`.
   */
  readonly isKept?: boolean;
}

/** A postgres.js `Sql`, or another client with its `unsafe` and `begin`. */
export interface PostgresLike {
  /** Runs text as SQL. */
  // deno-lint-ignore no-explicit-any -- each driver types its results in a way of its own
  unsafe(text: string, parameters?: any[], options?: any): PromiseLike<readonly unknown[]>;
  /** Runs a function in a transaction. */
  // deno-lint-ignore no-explicit-any
  begin?(fn: (tx: any) => Promise<unknown>): Promise<unknown>;
  /** Runs a function in a savepoint. */
  // deno-lint-ignore no-explicit-any
  savepoint?(fn: (tx: any) => Promise<unknown>): Promise<unknown>;
}

/** A PGlite, or its transaction. */
export interface PgliteLike {
  /** Runs one statement. */
  query(text: string, parameters?: unknown[]): Promise<{ rows: unknown[] }>;
  /** Runs several statements in one string. */
  exec(sql: string): Promise<unknown>;
  /** Runs a function in a transaction. */
  // deno-lint-ignore no-explicit-any
  transaction?(fn: (tx: any) => Promise<unknown>): Promise<unknown>;
}

/** A pg `Client`, or a `PoolClient`. */
export interface PgClientLike {
  /** Runs one statement. */
  query(text: string, parameters?: unknown[]): Promise<{ rows: unknown[] }>;
}

/** A pg `Pool`. */
export interface PgPoolLike extends PgClientLike {
  /** Takes a connection out of the pool. */
  connect(): Promise<PgClientLike & { release(error?: boolean): void }>;
  /** How many connections it has. */
  totalCount: number;
}

/** Every client that Bemi's own functions take. */
export type DatabaseLike = PostgresLike | PgliteLike | PgPoolLike | PgClientLike;
