import { connect } from "../database/connect.ts";
import type { DatabaseLike } from "../database/port.ts";
import { DEFAULT_SCHEMA } from "../identifiers.ts";
import type { SchemaOptions } from "./install.ts";
import { inSchema, requireInstalled } from "./schema.ts";

/** What was done to one partition of the log; `skipped`, as it was locked, comes next time. */
export interface MaintenanceStep {
  /** What was done with the partition. */
  readonly action: "created" | "dropped" | "skipped";
  /** Its name. */
  readonly partition: string;
}

/**
 * Makes the log's partitions ahead, empties the default one, and drops what is past the retention.
 *
 * @throws {BemiError} `schema_missing`
 * @example
 * ```ts
 * import postgres from "postgres";
 * import { maintain } from "@bemi/core/install";
 * for (const { action, partition } of await maintain(postgres())) console.log(action, partition);
 * ```
 */
export async function maintain(db: DatabaseLike, options: SchemaOptions = {}): Promise<MaintenanceStep[]> {
  const schema = options.schema ?? DEFAULT_SCHEMA;
  const database = connect(db);
  await requireInstalled(database, schema);
  return await database.query<MaintenanceStep>(
    inSchema(schema, 'select action, partition from "bemi".maintain()'),
  );
}
