import { connect } from "../database/connect.ts";
import type { DatabaseLike } from "../database/port.ts";
import { DEFAULT_SCHEMA } from "../identifiers.ts";
import { requireInstalled } from "../install/schema.ts";
import { type Change, changes } from "../history/mod.ts";
import { changesSince } from "../history/revert/log.ts";
import { endOfLog } from "./place.ts";

/** What a block gave and what it changed. */
export interface ChangedWithin<R> {
  /** What the function returned. */
  readonly result: R;
  /** In order, of tables that are tracked by triggers. */
  readonly changes: readonly Change[];
}

/**
 * Runs `fn` and tells what changed within, by whomever.
 *
 * @throws {BemiError} `schema_missing`, and whatever `fn` throws
 * @example
 * ```ts
 * import { PGlite } from "@electric-sql/pglite";
 * import { changesWithin } from "@bemi/core/testing";
 * const db = await PGlite.create();
 * const { changes } = await changesWithin(db, () => db.exec("delete from todos"));
 * console.log(changes.map(({ operation, table }) => `${operation} ${table}`));
 * ```
 */
export async function changesWithin<R>(
  db: DatabaseLike,
  fn: () => R,
  options: { readonly schema?: string | undefined } = {},
): Promise<ChangedWithin<Awaited<R>>> {
  const { schema = DEFAULT_SCHEMA } = options;
  const database = connect(db);
  await requireInstalled(database, schema);
  const place = await endOfLog(database, schema);
  const result = await fn();
  const made = await changesSince(database, schema, place);
  const [first] = made;
  if (!first) return { result, changes: [] };
  const ids = new Set(made.map(({ id }) => id));
  const since = made.reduce(
    (least, { committedAt }) => committedAt < least ? committedAt : least,
    first.committedAt,
  );
  const found = await changes(db, { since, schema });
  return { result, changes: found.filter(({ id }) => ids.has(id)) };
}
