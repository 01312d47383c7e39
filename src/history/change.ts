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
  readonly id: string;
  readonly database: string;
  readonly schema: string;
  readonly table: string;
  readonly primary_key: string | null;
  readonly former_primary_key: string | null;
  readonly operation: Operation;
  readonly before: Readonly<Partial<Row>>;
  readonly after: Readonly<Partial<Row>>;
  readonly context: JsonObject;
  readonly committed_at: string;
  readonly transaction_id: string;
  readonly position: string;
  /** Its place in the total order, to page from. */
  readonly cursor: string;
}
