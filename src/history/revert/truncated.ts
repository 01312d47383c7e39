import type { Database } from "../../database/port.ts";
import { quoteSchema } from "../../identifiers.ts";
import { type RevertConflict, tableConflict } from "./conflicts.ts";
import { type Image, readImage } from "./image.ts";
import { changesBefore, type LoggedChange, type UnitLog } from "./log.ts";
import { rowStories, type Truncated } from "./stories.ts";
import { type TableFacts, tableId } from "./tables.ts";

/**
 * The rows that a unit's TRUNCATEs took away, or of them the one with the key `of`, and a conflict where the log does not
 * know all of them.
 */
export async function truncatedRows(
  db: Database,
  schema: string,
  { own }: UnitLog,
  tables: ReadonlyMap<string, TableFacts | undefined>,
  of?: string,
): Promise<{ truncated: Truncated; conflicts: RevertConflict[] }> {
  const truncated = new Map<string, TruncatedRow[]>();
  const conflicts = new Map<string, RevertConflict>();
  const keys = of === undefined
    ? undefined
    : new Set([of, ...own.flatMap(({ key, formerKey }) => [key, formerKey])]);
  for (const change of own) {
    const table = tables.get(tableId(change));
    if (change.operation !== "TRUNCATE" || change.isGap || !table) continue;
    const rows = await allRows(db, schema, table, change);
    const taken = rows ?? await someRows(db, schema, change);
    truncated.set(change.id, keys ? taken.filter(({ key }) => keys.has(key)) : taken);
    const message = `the log may not know all rows that a TRUNCATE of ${table.name} took away`;
    if (!rows) conflicts.set(tableId(change), tableConflict("truncated", change, message));
  }
  return { truncated, conflicts: [...conflicts.values()] };
}

interface TruncatedRow {
  readonly key: string | null;
  readonly image: Image;
}

async function allRows(
  db: Database,
  schema: string,
  { oid }: TableFacts,
  { position, committedAt }: LoggedChange,
): Promise<TruncatedRow[] | undefined> {
  const [row] = await db.query<{ rows: string | null }>(
    `select ${
      quoteSchema(schema)
    }.rows_before($1::text::oid, $2::text::integer, '0/0'::pg_lsn + $3::text::numeric,
      $4::text::bigint, $5::text::timestamptz)::text as rows`,
    [oid, ...position.map(String), committedAt],
  );
  if (!row?.rows) return undefined;
  return (JSON.parse(row.rows) as { key: string | null; image: string }[])
    .map(({ key, image }) => ({ key, image: readImage(image) }));
}

// As far as they were ever written: each where its story had come to.
async function someRows(db: Database, schema: string, change: LoggedChange): Promise<TruncatedRow[]> {
  const earlier = (await changesBefore(db, schema, change)).map((other): LoggedChange =>
    other.operation === "SNAPSHOT" ? { ...other, operation: "CREATE" } : other
  );
  return rowStories({ own: earlier, foreign: [] }).flatMap(({ current, currentKey }) =>
    current ? [{ key: currentKey, image: current }] : []
  );
}
