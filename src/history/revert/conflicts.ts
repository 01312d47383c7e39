import { BemiError } from "../../errors.ts";
import type { RevertPlan } from "./plan.ts";

/**
 * Why a row cannot be taken back just so.
 *
 * | kind | what is in the way |
 * | --- | --- |
 * | `row_changed` | others changed the row since, or it is not as the log has it |
 * | `key_reused` | another row has the key by now |
 * | `unique` | another row has a value by now that may be there only once |
 * | `foreign_key` | rows that point at it would be in the way or go with it, or the row that it points at is gone |
 * | `cycle` | rows depend on each other, so that none can come first |
 * | `column_gone` | a column that is to get back its value is gone, under whatever name |
 * | `table_gone` | the table is dropped or renamed |
 * | `not_null` | a column added since needs a value |
 * | `inexact` | a value may not have been kept exactly, as jsonb cannot hold it |
 * | `unreadable` | the column's type of today does not take the value |
 * | `masked` | a column is masked, and so its value unknown |
 * | `truncated` | the log may not know all rows that a TRUNCATE took away |
 * | `gap` | changes are missing from the log |
 * | `refused` | the database refused a statement: a constraint, or a trigger, that could not be foreseen |
 */
export type ConflictKind =
  | "column_gone"
  | "cycle"
  | "foreign_key"
  | "gap"
  | "inexact"
  | "key_reused"
  | "masked"
  | "not_null"
  | "refused"
  | "row_changed"
  | "table_gone"
  | "truncated"
  | "unique"
  | "unreadable";

/** What keeps a unit from being taken back. */
export interface RevertConflict {
  /** Its kind. */
  readonly kind: ConflictKind;
  /** The schema of the table. */
  readonly schema: string;
  /** The table. */
  readonly table: string;
  /** `null` where the table has none, or all of it is concerned. */
  readonly key: string | null;
  /** Columns that are concerned, where it is about some. */
  readonly columns: readonly string[];
  /** The constraint or index in the way. */
  readonly constraint?: string | undefined;
  /** What others did since, by the ids of their changes; empty where the log does not know. */
  readonly changes: readonly string[];
  /** A sentence; never a value. */
  readonly message: string;
  /** Whether `force` has a meaning here. */
  readonly canForce: boolean;
}

/** What to do about a conflict: nothing at all, leave that row out, or go ahead all the same. */
export type ConflictChoice = "refuse" | "skip" | "force";

/** The same for all, or by conflict. */
export type OnConflict = ConflictChoice | ((conflict: RevertConflict) => ConflictChoice);

/** A revert that was refused, with its plan: nothing was changed. */
export class RevertRefused extends BemiError {
  /** What was to be done. */
  readonly plan: RevertPlan;

  /** Made by {@linkcode revert}. */
  constructor(plan: RevertPlan, cause?: unknown) {
    const [first] = plan.conflicts;
    const more = plan.conflicts.length > 1 ? `, and ${plan.conflicts.length - 1} more conflicts` : "";
    super("conflict", `Cannot revert: ${first?.message ?? "there are conflicts"}${more}`, {
      hint: 'Look at the plan, then choose what to do about each conflict: onConflict "skip" or "force".',
      cause,
    });
    this.plan = plan;
  }
}

/** A conflict about all of a table. */
export function tableConflict(
  kind: ConflictKind,
  { schema, table }: { readonly schema: string; readonly table: string },
  message: string,
  canForce = true,
): RevertConflict {
  return { kind, schema, table, key: null, columns: [], changes: [], message, canForce };
}

/** What a choice comes to for one conflict. */
export function choose(onConflict: OnConflict, conflict: RevertConflict): ConflictChoice {
  const choice = typeof onConflict === "function" ? onConflict(conflict) : onConflict;
  if (choice !== "refuse" && choice !== "skip" && choice !== "force") {
    throw new BemiError("usage", `Unknown choice "${String(choice)}" for a conflict`, {
      hint: 'Choose "refuse", "skip" or "force".',
    });
  }
  return choice === "force" && !conflict.canForce ? "refuse" : choice;
}
