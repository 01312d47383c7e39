/** What a change did to its row. `SNAPSHOT` is a row that was there when tracking began. */
export type Operation = "CREATE" | "UPDATE" | "DELETE" | "TRUNCATE" | "SNAPSHOT";

/** Every {@linkcode Operation}. */
export const OPERATIONS: readonly Operation[] = ["CREATE", "UPDATE", "DELETE", "TRUNCATE", "SNAPSHOT"];

/** A JSON object. */
export type JsonObject = Readonly<Record<string, unknown>>;

/**
 * One change, as the log has it. Times are ISO 8601 with microseconds; ids and positions are decimal text.
 *
 * @typeParam Row the table's rows, as JSON has them
 */
export interface Change<Row extends object = Record<string, unknown>> {
  /** The same however often the WAL is read. */
  readonly id: string;
  /** The database of the table. */
  readonly database: string;
  /** The schema of the table. */
  readonly schema: string;
  /** The table; of a partition its root. */
  readonly table: string;
  /** The primary key's text, a JSON array of several columns, or `null` without one. */
  readonly primary_key: string | null;
  /** The key before, where an UPDATE changed it. */
  readonly former_primary_key: string | null;
  /** What was done. */
  readonly operation: Operation;
  /** The row before; `{}` where there was none. */
  readonly before: Readonly<Partial<Row>>;
  /** The row after; `{}` where there is none. */
  readonly after: Readonly<Partial<Row>>;
  /** Who, where and how; `{}` where nobody said. */
  readonly context: JsonObject;
  /** When it was committed, in UTC with microseconds; by triggers, when it was written. */
  readonly committed_at: string;
  /** The transaction that it belongs to. */
  readonly transaction_id: string;
  /** The place in the WAL, as a number. */
  readonly position: string;
  /** Its place in the total order, to page from. */
  readonly cursor: string;
}
