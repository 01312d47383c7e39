import { BemiError } from "../errors.ts";

/** A place in the total order of changes: source, commit LSN, index in the transaction. */
export interface Place {
  readonly source: string;
  readonly lsn: string;
  readonly index: string;
}

/** A change's cursor, in SQL: what {@linkcode parseCursor} reads. It needs no escapes, in JSON or in an address. */
export const CURSOR_SQL: string =
  "pg_catalog.concat(source_id, '.', pg_catalog.replace(commit_lsn::text, '/', '-'), '.', transaction_index)";

/**
 * Reads a cursor, which to its users is opaque.
 *
 * @throws {BemiError} `usage`
 */
export function parseCursor(cursor: string): Place {
  const match = /^(-?\d{1,10})\.([0-9A-F]{1,8})-([0-9A-F]{1,8})\.(\d{1,19})$/.exec(cursor);
  const [, source, high, low, index] = match ?? [];
  if (source && high && low && index) return { source, lsn: `${high}/${low}`, index };
  throw new BemiError("usage", "This is no cursor of a change", {
    hint: "Pass the `cursor` of a change that was read.",
  });
}
