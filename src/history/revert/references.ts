import type { Database } from "../../database/port.ts";
import { quoteIdentifier } from "../../identifiers.ts";
import type { RevertConflict } from "./conflicts.ts";
import { type Image, tupleOf } from "./image.ts";
import { LOCATOR } from "./live.ts";
import { conflictOf, type RowStep } from "./steps.ts";
import {
  columnsNamed,
  type ForeignKeyFacts,
  onlyRows,
  recordColumns,
  type TableFacts,
  tableId,
  type UniqueFacts,
} from "./tables.ts";

/** A conflict of one step with rows that are no part of the revert; of a taken key, where the row lies that has it. */
export interface StepConflict {
  readonly step: RowStep;
  readonly conflict: RevertConflict;
  readonly occupant?: string;
}

/** What rows outside, and steps that were left out, have against the steps: unique indexes and foreign keys. */
export async function referenceConflicts(db: Database, steps: readonly RowStep[]): Promise<StepConflict[]> {
  const byTable = new Map<string, RowStep[]>();
  for (const step of steps) {
    const id = tableId(step.table);
    const list = byTable.get(id);
    if (list) list.push(step);
    else byTable.set(id, [step]);
  }
  const found: StepConflict[][] = [];
  for (const own of byTable.values()) {
    const [first] = own;
    if (!first) continue;
    const { table } = first;
    for (const unique of table.uniques) found.push(await takenValues(db, table, own, unique));
    for (const key of table.foreignKeys) {
      if (tableId(key.child) === tableId(table)) {
        found.push(await missingParents(db, table, own, byTable.get(tableId(key.parent)) ?? [], key));
      }
      if (tableId(key.parent) === tableId(table)) {
        found.push(await leftChildren(db, table, own, byTable.get(tableId(key.child)) ?? [], key));
      }
    }
  }
  return found.flat();
}

/** What a step takes away: the value of some columns that no row of it has afterwards. */
export function lostTuple({ row, to }: RowStep, columns: readonly string[]): string | undefined {
  const before = tupleOf(row?.image, columns);
  return before === tupleOf(to, columns) ? undefined : before;
}

/** What a step brings: the value of some columns that its row did not have before. */
export function gainedTuple({ row, to }: RowStep, columns: readonly string[]): string | undefined {
  const after = tupleOf(to, columns);
  return after === tupleOf(row?.image, columns) ? undefined : after;
}

async function takenValues(
  db: Database,
  table: TableFacts,
  steps: readonly RowStep[],
  unique: UniqueFacts,
): Promise<StepConflict[]> {
  const taking = steps.filter((step) => gainedTuple(step, unique.columns) !== undefined);
  const leaving = new Set(
    steps.filter((step) => lostTuple(step, unique.columns) !== undefined).map(({ row }) => row?.locator),
  );
  const columns = columnsNamed(table, unique.columns);
  const rows = taking.length === 0 ? [] : await db.query<{ n: number; locator: string }>(
    `select bemi_wanted.n, ${LOCATOR} as locator
    from jsonb_to_recordset($1::text::jsonb) as bemi_wanted (n integer, ${recordColumns("k", columns)})
      join ${onlyRows(table)} as bemi_row on ${equal("bemi_row", unique.columns)} order by 1`,
    [asked(taking.map(({ to }) => to), unique.columns)],
  );
  return rows.flatMap(({ n, locator }) => {
    const step = taking[n];
    if (!step || leaving.has(locator) || step.row?.locator === locator) return [];
    const conflict = unique.isKey
      ? conflictOf(step.story, "key_reused", `another row of ${table.name} has the key by now`, {
        columns: unique.columns,
        constraint: unique.name,
        canForce: step.operation === "INSERT",
      })
      : conflictOf(
        step.story,
        "unique",
        `another row of ${table.name} has a value that may be there only once`,
        {
          columns: unique.columns,
          constraint: unique.name,
          canForce: false,
        },
      );
    return [{ step, conflict, occupant: locator }];
  });
}

async function missingParents(
  db: Database,
  table: TableFacts,
  steps: readonly RowStep[],
  parents: readonly RowStep[],
  key: ForeignKeyFacts,
): Promise<StepConflict[]> {
  const brought = new Set(parents.map((step) => gainedTuple(step, key.parentColumns)));
  const taken = new Set(parents.map((step) => lostTuple(step, key.parentColumns)));
  const pointing = steps.filter((step) => {
    const tuple = gainedTuple(step, key.childColumns);
    return tuple !== undefined && !brought.has(tuple);
  });
  const rows = pointing.length === 0 ? [] : await db.query<{ n: number }>(
    `select bemi_wanted.n
    from jsonb_to_recordset($1::text::jsonb) as bemi_wanted (n integer, ${
      recordColumns("k", columnsNamed(table, key.childColumns))
    })
    where not exists (select from ${onlyRows(key.parent)} as bemi_row where ${
      equal("bemi_row", key.parentColumns)
    })`,
    [asked(pointing.map(({ to }) => to), key.childColumns)],
  );
  const missing = new Set(rows.map(({ n }) => n));
  return pointing.filter((step, n) => missing.has(n) || taken.has(gainedTuple(step, key.childColumns))).map((
    step,
  ) => ({
    step,
    conflict: conflictOf(
      step.story,
      "foreign_key",
      `the row of ${key.parent.name} that a row of ${table.name} points at is gone`,
      { columns: key.childColumns, constraint: key.name, canForce: false },
    ),
  }));
}

async function leftChildren(
  db: Database,
  table: TableFacts,
  steps: readonly RowStep[],
  children: readonly RowStep[],
  key: ForeignKeyFacts,
): Promise<StepConflict[]> {
  const going = steps.filter((step) =>
    lostTuple(step, key.parentColumns) !== undefined && !(step.operation === "UPDATE" && key.onUpdate === "c")
  );
  const leaving = new Set(
    children.filter((step) => lostTuple(step, key.childColumns) !== undefined).map(({ row }) => row?.locator),
  );
  const rows = going.length === 0 ? [] : await db.query<{ n: number; locator: string }>(
    `select bemi_wanted.n, ${LOCATOR} as locator
    from jsonb_to_recordset($1::text::jsonb) as bemi_wanted (n integer, ${
      recordColumns("k", columnsNamed(table, key.parentColumns))
    })
      join ${onlyRows(key.child)} as bemi_row on ${equal("bemi_row", key.childColumns)}`,
    [asked(going.map(({ row }) => row?.image), key.parentColumns)],
  );
  const blocked = new Set(rows.filter(({ locator }) => !leaving.has(locator)).map(({ n }) => n));
  return going.filter((_, n) => blocked.has(n)).map((step) => {
    const action = step.operation === "DELETE" ? key.onDelete : key.onUpdate;
    const fate = action === "c"
      ? "would be deleted with"
      : action === "a" || action === "r"
      ? "point at"
      : "would lose";
    return {
      step,
      conflict: conflictOf(
        step.story,
        "foreign_key",
        `rows of ${key.child.name} ${fate} a row of ${table.name}`,
        {
          columns: key.parentColumns,
          constraint: key.name,
          canForce: action !== "a" && action !== "r",
        },
      ),
    };
  });
}

function asked(images: readonly (Image | undefined)[], columns: readonly string[]): string {
  const rows = images.map((image, n) =>
    `{"n": ${n}, ${columns.map((name, i) => `"k${i + 1}": ${image?.get(name) ?? "null"}`).join(", ")}}`
  );
  return `[${rows.join(", ")}]`;
}

function equal(alias: string, columns: readonly string[]): string {
  return columns.map((name, i) => `${alias}.${quoteIdentifier(name)} = bemi_wanted.k${i + 1}`).join(" and ");
}
