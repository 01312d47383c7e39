import { keyText } from "../key.ts";
import type { Database } from "../../database/port.ts";
import { BemiError } from "../../errors.ts";
import { quoteSchema } from "../../identifiers.ts";
import { choose, type ConflictChoice, type OnConflict, type RevertConflict } from "./conflicts.ts";
import { type Image, imageJson, without } from "./image.ts";
import { findRows, type LiveRow } from "./live.ts";
import { readUnit, type UnitLog } from "./log.ts";
import { requireOneTable } from "./named-table.ts";
import { orderSteps } from "./order.ts";
import type { RevertPlan } from "./plan.ts";
import { referenceConflicts } from "./references.ts";
import { conflictOf, overwrite, rowOutcome, type RowStep } from "./steps.ts";
import { rowStories, type RowStory } from "./stories.ts";
import { type TableFacts, tableFacts, tableId } from "./tables.ts";
import { truncatedRows } from "./truncated.ts";
import { requireUnit, type RevertUnit } from "./unit.ts";
import { unitConflicts } from "./unit-conflicts.ts";

export interface ExamineOptions {
  readonly schema: string;
  readonly onConflict: OnConflict;
  /** Whether the rows are locked, to be written next. */
  readonly lock: boolean;
}

/** A plan with all that it takes to carry it out. */
export interface Examined {
  readonly plan: RevertPlan;
  /** What one statement does each, in order. */
  readonly batches: readonly (readonly RowStep[])[];
  /** Constraints, as in SQL, to be checked only at the end. */
  readonly deferred: readonly string[];
  /** Whether there is a conflict that nobody chose to skip or to force. */
  readonly isRefused: boolean;
}

/** Looks at the log, the catalog and the rows, and decides what to do. */
export async function examine(
  db: Database,
  asked: RevertUnit,
  options: ExamineOptions,
): Promise<Examined> {
  const { schema, onConflict } = options;
  requireUnit(asked);
  const unit: RevertUnit = "to" in asked ? await requireOneTable(db, schema, asked) : asked;
  const log = await readUnit(db, schema, unit);
  requireFound(unit, log);
  const tables = await tablesOf(db, schema, log);
  const { truncated, conflicts } = await truncatedRows(
    db,
    schema,
    log,
    tables,
    "key" in unit ? keyText(unit.key) : undefined,
  );
  const stories = rowStories(log, truncated);
  const verdict = new Verdict(onConflict);

  for (const conflict of [...await unitConflicts(db, schema, unit, log, tables), ...conflicts]) {
    if (verdict.add(conflict) !== "force") verdict.leaveOut(tableId(conflict));
  }
  const kept = stories.filter((story) => tables.get(tableId(story)) && !verdict.isLeftOut(tableId(story)));
  const outcomes = new Map<RowStory, { steps: readonly RowStep[]; row: LiveRow | undefined }>();
  for (const [id, table] of [...tables].sort(([a], [b]) => a < b ? -1 : 1)) {
    if (!table) continue;
    const own = kept.filter((story) => tableId(story) === id);
    const rows = await rowsOf(db, options, table, own, verdict);
    // At the key of a row that is to come back may stand, looking like it, one that the unit moved there.
    const moved = new Set(rows.flatMap(({ story, row }) => story.left && row ? [row.locator] : []));
    const found = rows.map(({ story, row }) => ({
      story,
      row,
      outcome: rowOutcome(story, table, row && !story.left && moved.has(row.locator) ? undefined : row),
    }));
    const readable = await readableSteps(db, schema, table, found.flatMap(({ outcome }) => outcome.steps));
    for (const { story, row, outcome } of found) {
      const checked = outcome.steps.map((step) => readable.get(step) ?? { step, conflicts: [] });
      const conflicts = [...outcome.conflicts, ...checked.flatMap((one) => one.conflicts)];
      const choices = conflicts.map((conflict) => verdict.add(conflict));
      if (choices.some((choice) => choice !== "force")) continue;
      outcomes.set(story, { steps: checked.flatMap(({ step }) => step ? [step] : []), row });
    }
  }

  let ordered = orderSteps([]);
  for (;;) {
    const steps = [...outcomes.values()].flatMap((outcome) => outcome.steps);
    let isSettled = true;
    for (const { step, conflict, occupant } of await referenceConflicts(db, steps)) {
      if (!outcomes.has(step.story) || verdict.knows(step.story, conflict)) continue;
      isSettled = false;
      const row = outcomes.get(step.story)?.row;
      if (verdict.add(conflict, step.story) !== "force") outcomes.delete(step.story);
      else if (occupant && row?.locator === occupant) {
        outcomes.set(step.story, { steps: overwrite(step, row), row });
      }
    }
    if (!isSettled) continue;
    ordered = orderSteps(steps);
    if (ordered.cycle.length === 0) break;
    for (const { story, table } of ordered.cycle) {
      outcomes.delete(story);
      verdict.add(
        conflictOf(
          story,
          "cycle",
          `rows of ${table.name} depend on each other, so that none can come first`,
          { canForce: false },
        ),
      );
    }
  }
  return {
    plan: {
      unit,
      changes: log.own.length,
      statements: ordered.batches.flat().map(describe),
      conflicts: verdict.conflicts,
    },
    batches: ordered.batches,
    deferred: ordered.deferred,
    isRefused: verdict.isRefused,
  };
}

/** The conflicts so far, and what was chosen about them. */
class Verdict {
  readonly conflicts: RevertConflict[] = [];
  isRefused = false;
  readonly #onConflict: OnConflict;
  readonly #tables = new Set<string>();
  readonly #known = new Map<RowStory, Set<string>>();

  constructor(onConflict: OnConflict) {
    this.#onConflict = onConflict;
  }

  add(conflict: RevertConflict, story?: RowStory): ConflictChoice {
    this.conflicts.push(conflict);
    if (story) this.#known.set(story, (this.#known.get(story) ?? new Set()).add(nameOf(conflict)));
    const choice = choose(this.#onConflict, conflict);
    if (choice === "refuse") this.isRefused = true;
    return choice;
  }

  knows(story: RowStory, conflict: RevertConflict): boolean {
    return this.#known.get(story)?.has(nameOf(conflict)) ?? false;
  }

  leaveOut(table: string): void {
    this.#tables.add(table);
  }

  isLeftOut(table: string): boolean {
    return this.#tables.has(table);
  }
}

const nameOf = ({ kind, constraint }: RevertConflict): string => `${kind} ${constraint ?? ""}`;

function requireFound(unit: RevertUnit, { own }: UnitLog): void {
  if (own.length > 0 || !("change" in unit || "transaction" in unit)) return;
  throw new BemiError("not_found", `The log has no such ${"change" in unit ? "change" : "transaction"}`, {
    hint:
      "See: bemi changes --json. What is past the retention is gone, and a worker that lags has not written it yet.",
  });
}

async function tablesOf(
  db: Database,
  schema: string,
  { own }: UnitLog,
): Promise<Map<string, TableFacts | undefined>> {
  const tables = new Map<string, TableFacts | undefined>();
  for (const change of own) {
    const id = tableId(change);
    if (!tables.has(id)) tables.set(id, await tableFacts(db, schema, change));
  }
  return tables;
}

// Each story with its row, found by the key that it has today or, where it is gone, had before.
async function rowsOf(
  db: Database,
  { schema, lock }: ExamineOptions,
  table: TableFacts,
  stories: readonly RowStory[],
  verdict: Verdict,
): Promise<{ story: RowStory; row: LiveRow | undefined }[]> {
  const place = ({ left, current, initial }: RowStory): Image =>
    left ? current ?? left : initial ?? new Map();
  const findable = stories.filter((story) => {
    // A row that is neither before nor after, and one without a key that is to come back, are not to be found.
    if (!story.initial && !story.left || table.key.length === 0 && !story.left) return false;
    const missing = table.key.filter((column) => !place(story).has(column));
    if (missing.length === 0) return true;
    verdict.add(
      conflictOf(story, "column_gone", `the key of ${table.name} is another than it was`, {
        columns: missing,
        canForce: false,
      }),
    );
    return false;
  });
  const rows = await findRows(
    db,
    schema,
    table,
    findable.map((story) => ({ at: place(story), expected: story.left ?? story.initial ?? new Map() })),
    { lock },
  );
  const found = new Map(findable.map((story, n) => [story, rows[n]]));
  return stories.filter((story) => found.has(story) || table.key.length === 0)
    .map((story) => ({ story, row: found.get(story) }));
}

interface Readable {
  readonly step: RowStep | undefined;
  readonly conflicts: readonly RevertConflict[];
}

// Of steps with values that today's columns do not take, what is left without those.
async function readableSteps(
  db: Database,
  schema: string,
  table: TableFacts,
  steps: readonly RowStep[],
): Promise<Map<RowStep, Readable>> {
  const setting = steps.filter(({ values }) => values.size > 0);
  const rows = setting.length === 0 ? [] : await db.query<{ n: string; refused: string }>(
    `select e.n::text, to_json(e.refused)::text as refused
    from ${quoteSchema(schema)}.refused_images($1::text::oid, $2::text::jsonb) as e (n, refused)`,
    [table.oid, `[${setting.map(({ values }) => imageJson(values)).join(", ")}]`],
  );
  const readable = new Map<RowStep, Readable>();
  for (const { n, refused } of rows) {
    const step = setting[Number(n) - 1];
    if (!step) continue;
    const columns = JSON.parse(refused) as string[];
    const message = `a column of ${table.name} does not take its former value any more`;
    const values = without(step.values, columns);
    const kept = [...step.row?.image ?? []].filter(([name]) => columns.includes(name));
    readable.set(step, {
      step: values.size > 0 || step.operation === "INSERT"
        ? { ...step, values, to: new Map([...step.to ?? [], ...kept]) }
        : undefined,
      conflicts: [conflictOf(step.story, "unreadable", message, { columns, canForce: true })],
    });
  }
  return readable;
}

function describe({ operation, table, story, values }: RowStep): RevertPlan["statements"][number] {
  return {
    operation,
    schema: table.schema,
    table: table.table,
    key: operation === "INSERT" ? story.initialKey : story.currentKey,
    columns: Object.fromEntries(values),
  };
}
