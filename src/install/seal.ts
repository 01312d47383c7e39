import { connect } from "../database/connect.ts";
import type { DatabaseLike } from "../database/port.ts";
import { BemiError } from "../errors.ts";
import { DEFAULT_SCHEMA } from "../identifiers.ts";
import type { SchemaOptions } from "./install.ts";
import { inSchema, requireInstalled } from "./schema.ts";

/** Options of a seal. */
export interface SealOptions extends SchemaOptions {
  /**
   * How long to wait for transactions that began before, in milliseconds.
   * @default 30000
   */
  readonly patience?: number | undefined;
}

/**
 * Puts a secret, which only the owner can read, into each context message in the Write-Ahead Log. The worker checks it
 * and leaves it out of the log, so that no other role can forge who did what. Waits until it is enforced.
 *
 * @throws {BemiError} `schema_missing`, `lock_timeout` where an older transaction stays open: to be called again
 * @example
 * ```ts
 * import postgres from "postgres";
 * import { seal } from "@bemi/core/install";
 * await seal(postgres());
 * ```
 */
export async function seal(db: DatabaseLike, options: SealOptions = {}): Promise<void> {
  const schema = options.schema ?? DEFAULT_SCHEMA;
  const { patience = 30_000 } = options;
  const database = connect(db);
  await requireInstalled(database, schema);
  const end = Date.now() + patience;
  for (let delay = 20;; delay = Math.min(1000, delay * 2)) {
    const [row] = await database.query<{ enforced: boolean }>(
      inSchema(schema, 'select "bemi".seal() as enforced'),
    );
    if (row?.enforced) return;
    if (Date.now() >= end) {
      throw new BemiError("lock_timeout", "Messages are sealed, but those without the seal still pass", {
        hint:
          "A transaction from before stays open: when it has ended (see pg_stat_activity), run this again.",
      });
    }
    await new Promise((done) => setTimeout(done, delay));
  }
}
