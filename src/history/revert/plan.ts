import { connect } from "../../database/connect.ts";
import type { DatabaseLike } from "../../database/port.ts";
import { DEFAULT_SCHEMA } from "../../identifiers.ts";
import { requireInstalled } from "../../install/schema.ts";
import type { OnConflict, RevertConflict } from "./conflicts.ts";
import { examine } from "./examine.ts";
import { waitForWorker } from "../worker-lag.ts";
import type { RevertUnit } from "./unit.ts";

/** Options of {@linkcode planRevert} and {@linkcode revert}. */
export interface RevertOptions {
  /**
   * What to do about rows that cannot be taken back just so: nothing at all, leave them out, or go ahead all the same.
   * @default "refuse"
   */
  readonly onConflict?: OnConflict | undefined;
  /**
   * With tables captured from the Write-Ahead Log: how long to wait, in milliseconds, until the log has all that is
   * committed.
   * @default 10000
   */
  readonly wait?: number | undefined;
  /**
   * The schema of the installation.
   * @default "bemi"
   */
  readonly schema?: string | undefined;
}

/** What a revert does to one row. */
export interface RevertStatement {
  /** What is to be done with the row. */
  readonly operation: "INSERT" | "UPDATE" | "DELETE";
  /** The schema of the table. */
  readonly schema: string;
  /** The table. */
  readonly table: string;
  /** The key of the row as it is now; of one that is to come back, the key that it gets. */
  readonly key: string | null;
  /** The columns that it sets, each as JSON text: numbers are exact. */
  readonly columns: Readonly<Record<string, string>>;
}

/** What a revert comes to. */
export interface RevertPlan {
  /** What is to be taken back. */
  readonly unit: RevertUnit;
  /** How many changes it takes back. */
  readonly changes: number;
  /** In the order in which they run; those of rows in conflict are among them only where that is to be forced. */
  readonly statements: readonly RevertStatement[];
  /** What keeps it from being taken back. */
  readonly conflicts: readonly RevertConflict[];
}

/**
 * Finds out what reverting a unit comes to: every statement, in order, and every conflict. Changes nothing.
 *
 * @throws {BemiError} `not_found` where the log has no such change or transaction, `log_behind`, `usage`, `schema_missing`
 * @example
 * ```ts
 * import { PGlite } from "@electric-sql/pglite";
 * import { planRevert } from "@bemi/core/history";
 * const plan = await planRevert(await PGlite.create(), { context: { request_id: "4f1c" } });
 * for (const { operation, table, key } of plan.statements) console.log(operation, table, key);
 * ```
 */
export async function planRevert(
  db: DatabaseLike,
  unit: RevertUnit,
  options: RevertOptions = {},
): Promise<RevertPlan> {
  const { schema = DEFAULT_SCHEMA, onConflict = "refuse", wait } = options;
  const database = connect(db);
  await requireInstalled(database, schema);
  await waitForWorker(database, { schema, wait });
  return await database.transaction(async (tx) =>
    (await examine(tx, unit, { schema, onConflict, lock: false })).plan
  );
}
