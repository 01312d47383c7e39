/**
 * Reading the log of changes, and taking changes back.
 *
 * @module
 */
export { changes, changesJson, OPERATIONS } from "./changes.ts";
export type { Change, ChangesFilter, Operation } from "./changes.ts";
export { revert } from "./revert/apply.ts";
export type { RevertResult } from "./revert/apply.ts";
export { RevertRefused } from "./revert/conflicts.ts";
export type { ConflictChoice, ConflictKind, OnConflict, RevertConflict } from "./revert/conflicts.ts";
export { planRevert } from "./revert/plan.ts";
export type { RevertOptions, RevertPlan, RevertStatement } from "./revert/plan.ts";
export { revertScript } from "./revert/script.ts";
export type { Adjusted } from "./revert/settle.ts";
export type { RevertUnit, TransactionId } from "./revert/unit.ts";
