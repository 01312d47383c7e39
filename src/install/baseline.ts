import { connect } from "../database/connect.ts";
import type { DatabaseLike } from "../database/port.ts";
import { DEFAULT_SCHEMA } from "../identifiers.ts";
import type { SchemaOptions } from "./install.ts";
import { inSchema, requireInstalled } from "./schema.ts";
import { explained, resolve } from "./track.ts";

/** Options of a baseline. */
export interface BaselineOptions extends SchemaOptions {
  /**
   * Rows that are recorded, and locked against writers, in one transaction.
   * @default 1000
   */
  readonly chunk?: number | undefined;
  /** Ends after the chunk that is under way; called again, the baseline goes on from there. */
  readonly signal?: AbortSignal | undefined;
  /** Is told how many rows have been recorded in all. */
  readonly onProgress?: ((rows: number) => void) | undefined;
}

/**
 * Records the rows that a tracked table holds as `SNAPSHOT` changes, each in its place in the history of its key, while
 * the application goes on writing. Once: where it was interrupted, it goes on; where it is complete, nothing happens, but
 * that it begins anew where the log has since lost what it told of, as past its retention or by a gap.
 *
 * @returns the rows recorded by this call
 * @throws {BemiError} `table_missing`, `not_trackable` where it is not tracked, `privilege_missing`, `schema_missing`
 * @example
 * ```ts
 * import postgres from "postgres";
 * import { baseline, track } from "@bemi/core/install";
 * const sql = postgres();
 * await track(sql, "todos");
 * await baseline(sql, "todos", { onProgress: (rows) => console.log(`${rows} rows`) });
 * ```
 */
export async function baseline(
  db: DatabaseLike,
  table: string,
  options: BaselineOptions = {},
): Promise<number> {
  const { schema = DEFAULT_SCHEMA, chunk = 1000, signal, onProgress } = options;
  const database = connect(db);
  await requireInstalled(database, schema);
  const name = await resolve(database, table);
  let total = 0;
  while (!signal?.aborted) {
    const [row] = await database.query<{ rows: string | null }>(
      inSchema(schema, 'select "bemi".baseline($1::text::regclass, $2::text::integer)::text as rows'),
      [name, String(chunk)],
    ).catch((error: unknown) => {
      throw explained(error);
    });
    if (!row || row.rows === null) break;
    total += Number(row.rows);
    onProgress?.(total);
  }
  return total;
}
