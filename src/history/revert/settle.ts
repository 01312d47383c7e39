import type { Database } from "../../database/port.ts";
import type { RevertConflict } from "./conflicts.ts";
import { type Image, tupleOf } from "./image.ts";
import { findRows } from "./live.ts";
import { statements } from "./statements.ts";
import { conflictOf, type RowStep } from "./steps.ts";
import { tableId } from "./tables.ts";

/** A row that triggers left otherwise than a revert wanted it. */
export interface Adjusted {
  /** The schema of the table. */
  readonly schema: string;
  /** The table. */
  readonly table: string;
  /** The key of the row. */
  readonly key: string | null;
  /** The columns that were written. */
  readonly columns: readonly string[];
}

/** A row that was to be there is not, or the other way round. */
export class Unsettled extends Error {
  readonly conflict: RevertConflict;

  constructor(conflict: RevertConflict) {
    super(conflict.message);
    this.conflict = conflict;
  }
}

/** Corrections before it is left as the triggers will have it. */
const ROUNDS = 2;

/**
 * Compares the rows with what they were to become. The application's triggers and cascades ran with the statements, and
 * may have changed rows after their turn (a counter), which is corrected, or insist on a value (an `updated_at`).
 *
 * @throws {Unsettled}
 */
export async function settle(db: Database, schema: string, steps: readonly RowStep[]): Promise<Adjusted[]> {
  const adjusted: Adjusted[] = [];
  const byTable = new Map<string, RowStep[]>();
  const wanted = wantedImages(steps);
  // The last step of each row says what is to become of it.
  for (const step of new Map(steps.map((step) => [step.story, step])).values()) {
    if (step.table.key.length === 0) continue;
    const id = tableId(step.table);
    const list = byTable.get(id);
    if (list) list.push(step);
    else byTable.set(id, [step]);
  }
  for (let round = 0; round <= ROUNDS; round++) {
    const corrections: RowStep[] = [];
    for (const own of byTable.values()) {
      for (const { step, image, columns } of await compare(db, schema, own, wanted)) {
        if (round === ROUNDS) {
          const { schema, table } = step.table;
          adjusted.push({ schema, table, key: step.story.initialKey, columns });
          continue;
        }
        corrections.push({
          ...step,
          operation: "UPDATE",
          row: { locator: "", image, differing: [] },
          values: new Map([...wanted.get(step.story) ?? []].filter(([name]) => columns.includes(name))),
        });
      }
    }
    if (corrections.length === 0) break;
    for (const { sql, rows } of statements(corrections.map((step) => [step]))) await db.query(sql, [rows]);
  }
  return adjusted;
}

async function compare(
  db: Database,
  schema: string,
  own: readonly RowStep[],
  wanted: ReadonlyMap<unknown, Image>,
): Promise<{ step: RowStep; image: Image; columns: readonly string[] }[]> {
  const [first] = own;
  if (!first) return [];
  const { table } = first;
  const present = new Set(own.map(({ to }) => tupleOf(to, table.key)));
  const rows = await findRows(
    db,
    schema,
    table,
    own.map((step) => ({
      at: step.to ?? step.row?.image ?? new Map(),
      expected: wanted.get(step.story) ?? new Map<string, string>(),
    })),
    { lock: false, isComparing: true },
  );
  return own.flatMap((step, n) => {
    const row = rows[n];
    const isGone = step.operation === "DELETE";
    if (isGone && !row || isGone && present.has(tupleOf(step.row?.image, table.key))) return [];
    if (isGone !== (row === undefined)) {
      const message = isGone ? "is still there" : "is not there";
      throw new Unsettled(
        conflictOf(
          step.story,
          "refused",
          `a row of ${table.name} ${message}, which a trigger must have seen to`,
          {
            canForce: false,
          },
        ),
      );
    }
    return row && row.differing.length > 0 ? [{ step, image: row.image, columns: row.differing }] : [];
  });
}

// All that the steps of each row set, by its story.
function wantedImages(steps: readonly RowStep[]): Map<unknown, Image> {
  const wanted = new Map<unknown, Image>();
  for (const { story, operation, values } of steps) {
    wanted.set(story, operation === "DELETE" ? new Map() : new Map([...wanted.get(story) ?? [], ...values]));
  }
  return wanted;
}
