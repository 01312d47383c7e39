import { type Edge, edgesOf } from "./edges.ts";
import { type Image, tupleOf } from "./image.ts";
import type { RowStep } from "./steps.ts";
import { tableId } from "./tables.ts";

/** Steps in an order in which each constraint holds after each statement; a batch is what one statement does. */
export interface Ordered {
  readonly batches: readonly (readonly RowStep[])[];
  /** Constraints, as in SQL, to be checked only at the end. */
  readonly deferred: readonly string[];
  /** Steps that depend on each other, where nothing helps. */
  readonly cycle: readonly RowStep[];
}

/**
 * Orders steps: a row that is pointed at comes before what points at it and goes after it, and a value that may be
 * there once is given up before it is taken. A ring is opened where a constraint can be deferred, or by a step in
 * between: a NULL that is filled later, or a value that the row had in between.
 */
export function orderSteps(given: readonly RowStep[]): Ordered {
  const steps = [...given];
  const deferred = new Set<string>();
  for (let attempt = 0; attempt <= 2 * given.length; attempt++) {
    const edges = edgesOf(steps).filter(({ constraint }) => !deferred.has(constraint));
    const { batches, ring } = sort(steps, edges);
    if (ring.length === 0) return { batches, deferred: [...deferred], cycle: [] };
    const deferrable = ring.find(({ isDeferrable }) => isDeferrable);
    if (deferrable) deferred.add(deferrable.constraint);
    else if (!ring.some((edge) => open(steps, edge))) {
      return { batches: [], deferred: [], cycle: [...new Set(ring.map(({ before }) => before))] };
    }
  }
  return { batches: [], deferred: [], cycle: given };
}

/** Steps with the same one can be done by one statement. */
function groupKey({ operation, table, values }: RowStep): string {
  return JSON.stringify([tableId(table), operation, [...values.keys()].sort()]);
}

// What is free goes first, and with it all of its group that is free, so that one statement does many rows.
function sort(steps: readonly RowStep[], edges: readonly Edge[]): { batches: RowStep[][]; ring: Edge[] } {
  const blockers = new Map<RowStep, number>(steps.map((step) => [step, 0]));
  const following = new Map<RowStep, RowStep[]>();
  for (const { before, after } of edges) {
    blockers.set(after, (blockers.get(after) ?? 0) + 1);
    const list = following.get(before);
    if (list) list.push(after);
    else following.set(before, [after]);
  }
  const ready = new Map<string, RowStep[]>();
  const free = (step: RowStep): void => {
    const key = groupKey(step);
    const group = ready.get(key);
    if (group) group.push(step);
    else ready.set(key, [step]);
  };
  for (const step of steps) if (blockers.get(step) === 0) free(step);
  const batches: RowStep[][] = [];
  const done = new Set<RowStep>();
  for (let [entry] = ready; entry; [entry] = ready) {
    const [key, group] = entry;
    // What these set free of their group is for a later statement, since it depends on them.
    ready.delete(key);
    batches.push(group);
    for (const step of group) {
      done.add(step);
      for (const next of following.get(step) ?? []) {
        const left = (blockers.get(next) ?? 0) - 1;
        blockers.set(next, left);
        if (left === 0) free(next);
      }
    }
  }
  return { batches, ring: done.size === steps.length ? [] : ringAmong(done, edges) };
}

// Backwards from any step that is stuck, one comes round.
function ringAmong(done: ReadonlySet<RowStep>, edges: readonly Edge[]): Edge[] {
  const into = new Map<RowStep, Edge>();
  for (const edge of edges) if (!done.has(edge.before)) into.set(edge.after, edge);
  const path: Edge[] = [];
  let [edge] = into.values();
  while (edge && !path.includes(edge)) {
    path.push(edge);
    edge = into.get(edge.before);
  }
  return edge ? path.slice(path.indexOf(edge)) : [];
}

// Puts a step in between, where that opens the ring at this edge.
function open(steps: RowStep[], edge: Edge): boolean {
  if (edge.columns.length === 0) return false;
  const nullable = edge.columns.every((name) =>
    edge.pointing?.table.columns.some((column) => column.name === name && column.isNullable)
  );
  const nulls: Image = new Map(edge.columns.map((name) => [name, "null"]));
  const step = edge.pointing;
  if (step && nullable && step.operation === "INSERT" && edge.after === step) {
    const filled = new Map([...step.values].filter(([name]) => edge.columns.includes(name)));
    const half = new Map([...step.values, ...nulls]);
    const row = { locator: "", image: half, differing: [] };
    steps.splice(steps.indexOf(step), 1, { ...step, values: half, to: half }, {
      ...step,
      operation: "UPDATE",
      row,
      values: filled,
    });
    return true;
  }
  if (step?.row && nullable && step.operation === "DELETE" && edge.before === step) {
    const half = new Map([...step.row.image, ...nulls]);
    steps.splice(
      steps.indexOf(step),
      1,
      { ...step, operation: "UPDATE", values: nulls, to: half },
      { ...step, row: { ...step.row, image: half } },
    );
    return true;
  }
  return edge.unique !== undefined && park(steps, edge.before, edge.unique) ||
    edge.unique !== undefined && park(steps, edge.after, edge.unique);
}

// A value of its own that the row had for a while in the unit: it is moved there first.
function park(steps: RowStep[], step: RowStep, columns: readonly string[]): boolean {
  if (!step.row || step.operation !== "UPDATE") return false;
  const used = new Set(steps.flatMap(({ row, to }) => [tupleOf(row?.image, columns), tupleOf(to, columns)]));
  const spare = step.story.between.find((image) => {
    const tuple = tupleOf(image, columns);
    return tuple !== undefined && !used.has(tuple);
  });
  if (!spare) return false;
  const values = new Map([...spare].filter(([name]) => columns.includes(name)));
  const half = new Map([...step.row.image, ...values]);
  steps.splice(
    steps.indexOf(step),
    1,
    { ...step, values, to: half },
    { ...step, row: { ...step.row, image: half } },
  );
  return true;
}
