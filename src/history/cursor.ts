import { BemiError } from "../errors.ts";

/** A place in the total order of changes: source, commit LSN, index in the transaction. */
export interface Place {
  readonly source: string;
  readonly lsn: string;
  readonly index: string;
}

/** A change's cursor, in SQL: what {@linkcode parseCursor} reads. */
export const CURSOR_SQL: string =
  "pg_catalog.translate(pg_catalog.encode(convert_to(source_id || ' ' || commit_lsn || ' ' || transaction_index, 'UTF8'), 'base64'), E'+/=\\n', '-_')";

/**
 * Reads a cursor, which to its users is opaque.
 *
 * @throws {BemiError} `usage`
 */
export function parseCursor(cursor: string): Place {
  try {
    const match = /^(\d{1,10}) ([0-9A-F]{1,8}\/[0-9A-F]{1,8}) (\d{1,19})$/.exec(
      atob(cursor.replaceAll("-", "+").replaceAll("_", "/")),
    );
    const [, source, lsn, index] = match ?? [];
    if (source && lsn && index) return { source, lsn, index };
  } catch {
    // No base64: the same remedy.
  }
  throw new BemiError("usage", "This is no cursor of a change", {
    hint: "Pass the `cursor` of a change that was read.",
  });
}
