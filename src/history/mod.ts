/**
 * Reading the log of changes, tables as they were, and taking changes back.
 *
 * @module
 */
export { asOf, asOfJson } from "./as-of.ts";
export type { AsOfOptions, QueryAsOfOptions, TableAsOfOptions } from "./as-of.ts";
export { OPERATIONS } from "./change.ts";
export type { Change, JsonObject, Operation } from "./change.ts";
export { changes, changesJson } from "./changes.ts";
export type { ChangesOptions, ReadOptions } from "./changes.ts";
export { diff } from "./diff.ts";
export type { Difference } from "./diff.ts";
export type { ChangeConditions, ChangesFilter, Page } from "./filter.ts";
export { groups, TIME_BUCKETS } from "./groups.ts";
export type { Group, GroupBy, GroupsOptions } from "./groups.ts";
export { history, historyJson } from "./history.ts";
export type { HistoryOptions } from "./history.ts";
export type { Key } from "./key.ts";
export type { Moment } from "./moment.ts";
export type { Numbers } from "./numbers.ts";
export { revert } from "./revert/apply.ts";
export type { RevertResult } from "./revert/apply.ts";
export { RevertRefused } from "./revert/conflicts.ts";
export type { ConflictChoice, ConflictKind, OnConflict, RevertConflict } from "./revert/conflicts.ts";
export { planRevert } from "./revert/plan.ts";
export type { RevertOptions, RevertPlan, RevertStatement } from "./revert/plan.ts";
export { revertScript } from "./revert/script.ts";
export type { Adjusted } from "./revert/settle.ts";
export type { RevertUnit, TransactionId } from "./revert/unit.ts";
export { scoped } from "./scope.ts";
export type { Scope, ScopedChangesOptions, ScopedHistory } from "./scope.ts";
