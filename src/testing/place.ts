import type { Database } from "../database/port.ts";
import { BemiError } from "../errors.ts";
import { quoteSchema } from "../identifiers.ts";

/** A place in the log of what triggers captured: whatever comes later lies behind it. */
export interface Place {
  readonly source: number;
  readonly lsn: string;
  readonly index: string;
}

/** The end of the log. Of transactions that are still open it knows nothing. */
export async function endOfLog(db: Database, schema: string): Promise<Place> {
  const bemi = quoteSchema(schema);
  const [place] = await db.query<Place>(
    `select ${bemi}.current_source('trigger') as source, pg_current_wal_insert_lsn()::text as lsn,
      (last_value - case when is_called then 0 else 1 end)::text as index from ${bemi}.change_sequence`,
  );
  if (place) return place;
  throw new BemiError("schema_missing", "Bemi's schema is damaged", { hint: "Run: bemi migrate" });
}
