import type { StatementKind } from "./statement-kind.ts";

/** Options of every `withBemi`. */
export interface WrapOptions {
  /**
   * Which statements outside a transaction get the context: those with a data-modifying keyword, or all, for
   * functions that write (`select complete_todo(1)`).
   * @default "writes"
   */
  readonly wrap?: "writes" | "all";
}

/** Whether a statement gets the context outside a transaction as well. */
export function getsContextAlone({ controls, writes }: StatementKind, { wrap }: WrapOptions): boolean {
  return !controls && (writes || wrap === "all");
}
