import type { ConflictKind, RevertConflict } from "./conflicts.ts";
import { differences, type Image } from "./image.ts";
import type { LiveRow } from "./live.ts";
import type { RowStory } from "./stories.ts";
import type { TableFacts } from "./tables.ts";

/** One statement for one row, on its way to be ordered among the others. */
export interface RowStep {
  readonly operation: "INSERT" | "UPDATE" | "DELETE";
  readonly table: TableFacts;
  readonly story: RowStory;
  /** The row that it changes or deletes. */
  readonly row: LiveRow | undefined;
  /** The columns that it sets. */
  readonly values: Image;
  /** All of the row, after it; `undefined` where it is gone. */
  readonly to: Image | undefined;
}

/** What a row's story comes to: its steps if all goes well or is forced, and what is in the way. */
export interface RowOutcome {
  readonly steps: readonly RowStep[];
  readonly conflicts: readonly RevertConflict[];
}

/** The row that the story ends with, or for one that is to come back, the one that has its key now. */
export function rowOutcome(story: RowStory, table: TableFacts, row: LiveRow | undefined): RowOutcome {
  const { initial, left } = story;
  if (!initial) return left && row ? deletion(story, table, row) : NOTHING;
  if (!left) return comeback(story, table, initial, row);
  return row ? restoration(story, table, row) : lost(story, table, initial);
}

const NOTHING: RowOutcome = { steps: [], conflicts: [] };

function deletion(story: RowStory, table: TableFacts, row: LiveRow): RowOutcome {
  // Of a column that came later the image knows nothing, and somebody may have filled it.
  const isWider = story.foreign.length > 0 &&
    table.columns.some(({ name, isGenerated }) =>
      !isGenerated && row.image.has(name) && !story.left?.has(name)
    );
  return {
    steps: [{ operation: "DELETE", table, story, row, values: new Map(), to: undefined }],
    conflicts: row.differing.length > 0 || story.isInterleaved || isWider
      ? [changed(story, row.differing)]
      : [],
  };
}

function restoration(story: RowStory, table: TableFacts, row: LiveRow): RowOutcome {
  const isChanged = row.differing.length > 0 || story.isInterleaved;
  const wanted = isChanged
    ? [...story.restored].filter(([column, value]) => row.image.get(column) !== value)
    : [...story.restored].filter(([column, value]) => story.left?.get(column) !== value);
  const { values, conflicts } = settable(story, table, new Map(wanted), "UPDATE");
  if (values.size === 0 && conflicts.length === 0) return NOTHING;
  if (isChanged) conflicts.unshift(changed(story, row.differing));
  return { steps: update(story, table, row, values), conflicts };
}

// Updated by the unit, and gone since.
function lost(story: RowStory, table: TableFacts, initial: Image): RowOutcome {
  const { values, conflicts } = settable(story, table, initial, "INSERT");
  return {
    steps: [{ operation: "INSERT", table, story, row: undefined, values, to: values }],
    conflicts: [changed(story, []), ...conflicts],
  };
}

function comeback(story: RowStory, table: TableFacts, initial: Image, row: LiveRow | undefined): RowOutcome {
  if (row && row.differing.length === 0) return NOTHING;
  const { values, conflicts } = settable(story, table, initial, "INSERT");
  return {
    steps: [{ operation: "INSERT", table, story, row: undefined, values, to: values }],
    conflicts,
  };
}

/** In place of an INSERT that finds its key taken: the row that has it becomes what it is to be. */
export function overwrite(step: RowStep, row: LiveRow): RowStep[] {
  return update(step.story, step.table, row, differences(step.values, row.image));
}

function update(story: RowStory, table: TableFacts, row: LiveRow, values: Image): RowStep[] {
  if (values.size === 0) return [];
  const to = new Map([...row.image, ...values]);
  if (!table.columns.some(({ name, isAlwaysIdentity }) => isAlwaysIdentity && values.has(name))) {
    return [{ operation: "UPDATE", table, story, row, values, to }];
  }
  // PostgreSQL takes a value of one's own for such a column in an INSERT alone.
  const whole = new Map(
    [...to].filter(([name]) => table.columns.some((c) => c.name === name && !c.isGenerated)),
  );
  return [
    { operation: "DELETE", table, story, row, values: new Map(), to: undefined },
    { operation: "INSERT", table, story, row: undefined, values: whole, to: whole },
  ];
}

// What of some values can be set, and what that leaves to be desired.
function settable(
  story: RowStory,
  table: TableFacts,
  wanted: Image,
  operation: "INSERT" | "UPDATE",
): { values: Image; conflicts: RevertConflict[] } {
  const columns = new Map(table.columns.map((column) => [column.name, column]));
  const values = new Map(
    [...wanted].filter(([name]) => columns.has(name) && !columns.get(name)?.isGenerated),
  );
  const conflicts: RevertConflict[] = [];
  const add = (kind: ConflictKind, names: readonly string[], message: string, canForce: boolean): void => {
    if (names.length > 0) conflicts.push(conflictOf(story, kind, message, { columns: names, canForce }));
  };
  add(
    "column_gone",
    [...wanted.keys()].filter((name) => !columns.has(name)),
    `a column of ${table.name} that is to get back its value is gone`,
    true,
  );
  const unknown = [...new Set(table.masked)].filter((name) => columns.has(name));
  if (operation === "INSERT" || story.isReborn) {
    add("masked", unknown, `a column of ${table.name} is masked, and so not in the log`, true);
  }
  add(
    "not_null",
    table.columns.filter(({ name, isRequired, isNullable, isGenerated }) =>
      !isGenerated &&
      (operation === "INSERT" && isRequired && !values.has(name) ||
        !isNullable && values.get(name) === "null")
    ).map(({ name }) => name),
    `a column of ${table.name} needs a value that the row did not have`,
    false,
  );
  add(
    "inexact",
    [...values].filter(([name, value]) =>
      columns.get(name)?.holdsJson && isInexact(columns.get(name)?.type ?? "", value)
    )
      .map(([name]) => name),
    `a json value of ${table.name} was kept as jsonb, without its order, spaces and repeated keys`,
    true,
  );
  return { values, conflicts };
}

// An element of a jsonb[] that is an array itself looks like another dimension.
function isInexact(type: string, value: string): boolean {
  return type.startsWith("jsonb") ? /^\[\s*\[/.test(value) : /^[[{]/.test(value);
}

function changed(story: RowStory, columns: readonly string[]): RevertConflict {
  return conflictOf(story, "row_changed", `a row of ${story.schema}.${story.table} was changed since`, {
    columns,
    canForce: true,
  });
}

/** A conflict about the row of a story. */
export function conflictOf(
  story: RowStory,
  kind: ConflictKind,
  message: string,
  details: { readonly columns?: readonly string[]; readonly constraint?: string; readonly canForce: boolean },
): RevertConflict {
  return {
    kind,
    schema: story.schema,
    table: story.table,
    key: story.left ? story.currentKey : story.initialKey,
    columns: details.columns ?? [],
    ...(details.constraint === undefined ? {} : { constraint: details.constraint }),
    changes: story.foreign.map(({ id }) => id),
    message,
    canForce: details.canForce,
  };
}
