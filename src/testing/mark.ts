import { connect } from "../database/connect.ts";
import type { Database, DatabaseLike } from "../database/port.ts";
import { BemiError } from "../errors.ts";
import { DEFAULT_SCHEMA, quoteSchema } from "../identifiers.ts";
import { requireInstalled } from "../install/schema.ts";
import { endOfLog, type Place } from "./place.ts";
import { readSequences, type SequenceState } from "./sequences.ts";

/** Options of {@linkcode mark}. */
export interface MarkOptions {
  /**
   * Whether tables may be untracked, and so stay as they are when others are rewound.
   * @default false
   */
  readonly allowUntracked?: boolean | undefined;
  /**
   * The schema of the installation.
   * @default "bemi"
   */
  readonly schema?: string | undefined;
}

/** A state of the database, to come back to: its rows and its sequences. */
export interface Mark {
  /** The schema of the installation. */
  readonly schema: string;
  /** Where each sequence stood. */
  readonly sequences: readonly SequenceState[];
}

const places: WeakMap<Mark, Place> = new WeakMap();

/** Where in the log the database was in the state of a mark, last. */
export function placeOf(mark: Mark): Place {
  const place = places.get(mark);
  if (place) return place;
  throw new BemiError("usage", "This is no mark", { hint: "Pass what mark(db) resolved to." });
}

/** The database is in the state of the mark again: nothing before this place needs to be looked at any more. */
export function moveMark(mark: Mark, place: Place): void {
  places.set(mark, place);
}

/**
 * Remembers the state of the database as it is now. Costs next to nothing: what comes later is in the log.
 *
 * @throws {BemiError} `schema_missing`; `usage` where a table's changes are not all recorded: it is not tracked, or not
 * by triggers, or some of its columns are masked or ignored
 * @example
 * ```ts
 * import { PGlite } from "@electric-sql/pglite";
 * import { install, trackAll } from "@bemi/core/install";
 * import { mark, rewind } from "@bemi/core/testing";
 * const db = await PGlite.create();
 * await install(db);
 * await trackAll(db);
 * const seeded = await mark(db);
 * // a test, and then
 * await rewind(db, seeded);
 * ```
 */
export async function mark(db: DatabaseLike, options: MarkOptions = {}): Promise<Mark> {
  const { schema = DEFAULT_SCHEMA, allowUntracked = false } = options;
  const database = connect(db);
  await requireInstalled(database, schema);
  await requireRecorded(database, schema, allowUntracked);
  const made: Mark = { schema, sequences: await readSequences(database, schema) };
  places.set(made, await endOfLog(database, schema));
  return made;
}

async function requireRecorded(db: Database, schema: string, allowUntracked: boolean): Promise<void> {
  const bemi = quoteSchema(schema);
  const [row] = await db.query<{ untracked: string | null; partly: string | null; elsewhere: string | null }>(
    `select (select string_agg(a.relation::text, ', ')
        from (select ${bemi}.all_tables() union select l.relation from ${bemi}.left_out() as l) as a (relation)
        where not exists (select from ${bemi}.tracked_tables t where t.relation = a.relation)) as untracked,
      string_agg(t.relation::text, ', ') filter (where t.masked <> '{}' or t.ignored <> '{}') as partly,
      string_agg(t.relation::text, ', ') filter (where t.capture <> 'trigger') as elsewhere
    from ${bemi}.tracked_tables t`,
  );
  const refuse = (message: string, hint: string): never => {
    throw new BemiError("usage", message, { hint });
  };
  if (row?.untracked && !allowUntracked) {
    refuse(
      `Not tracked, and so not to be rewound: ${row.untracked}`,
      "Call trackAll(db), or track those that were untracked, or mark with allowUntracked.",
    );
  }
  if (row?.elsewhere) {
    refuse(`Not tracked by triggers: ${row.elsewhere}`, 'In tests, track with capture "trigger".');
  }
  if (row?.partly) {
    refuse(
      `Masked or ignored columns are not rewound: ${row.partly}`,
      "In tests, track them without mask and ignore: track(db, table, { mask: [], ignore: [] }).",
    );
  }
}
