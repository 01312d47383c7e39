import { gainedTuple, lostTuple } from "./references.ts";
import type { RowStep } from "./steps.ts";
import { type ForeignKeyFacts, tableId } from "./tables.ts";

/** That one step has to come before another, and by which constraint. */
export interface Edge {
  readonly before: RowStep;
  readonly after: RowStep;
  /** As in SQL; empty where both are of one row. */
  readonly constraint: string;
  readonly isDeferrable: boolean;
  /** The step of the two that points at the other's row, and by which columns; or the columns of a unique index. */
  readonly pointing?: RowStep;
  readonly columns: readonly string[];
  readonly unique?: readonly string[];
}

/** Everything that the constraints demand of the order of steps. */
export function edgesOf(steps: readonly RowStep[]): Edge[] {
  const byTable = new Map<string, RowStep[]>();
  for (const step of steps) {
    const id = tableId(step.table);
    const list = byTable.get(id);
    if (list) list.push(step);
    else byTable.set(id, [step]);
  }
  const edges: Edge[][] = [];
  for (const own of byTable.values()) {
    edges.push(sameRow(own));
    const [first] = own;
    for (const unique of first?.table.uniques ?? []) {
      const { qualifiedName: constraint, isDeferrable, columns } = unique;
      const lost = indexed(own, (step) => lostTuple(step, columns));
      for (const after of own) {
        for (const before of lost.get(gainedTuple(after, columns) ?? "") ?? []) {
          if (before.story !== after.story) {
            edges.push([{ before, after, constraint, isDeferrable, columns, unique: columns }]);
          }
        }
      }
    }
    for (const key of first?.table.foreignKeys ?? []) {
      if (first && tableId(key.child) === tableId(first.table)) {
        edges.push(pointers(own, byTable.get(tableId(key.parent)) ?? [], key));
      }
    }
  }
  return edges.flat();
}

// The steps of one row stay in the order in which they were made.
function sameRow(steps: readonly RowStep[]): Edge[] {
  const edges: Edge[] = [];
  const last = new Map<unknown, RowStep>();
  for (const after of steps) {
    const before = last.get(after.story);
    if (before) edges.push({ before, after, constraint: "", isDeferrable: false, columns: [] });
    last.set(after.story, after);
  }
  return edges;
}

function pointers(children: readonly RowStep[], parents: readonly RowStep[], key: ForeignKeyFacts): Edge[] {
  const { qualifiedName: constraint, isDeferrable, childColumns: columns } = key;
  const brought = indexed(parents, (step) => gainedTuple(step, key.parentColumns));
  // Where the key's change cascades, what points at it follows by itself.
  const taken = indexed(
    parents,
    (step) =>
      step.operation === "UPDATE" && key.onUpdate === "c" ? undefined : lostTuple(step, key.parentColumns),
  );
  return children.flatMap((child) => {
    const edges: Edge[] = [];
    const common = { constraint, isDeferrable, pointing: child, columns };
    for (const before of brought.get(gainedTuple(child, columns) ?? "") ?? []) {
      if (before.story !== child.story) edges.push({ before, after: child, ...common });
    }
    for (const after of taken.get(lostTuple(child, columns) ?? "") ?? []) {
      if (after.story !== child.story) edges.push({ before: child, after, ...common });
    }
    return edges;
  });
}

function indexed(
  steps: readonly RowStep[],
  tuple: (step: RowStep) => string | undefined,
): Map<string, RowStep[]> {
  const found = new Map<string, RowStep[]>();
  for (const step of steps) {
    const value = tuple(step);
    if (value === undefined) continue;
    const list = found.get(value);
    if (list) list.push(step);
    else found.set(value, [step]);
  }
  return found;
}
