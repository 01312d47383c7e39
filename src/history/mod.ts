/**
 * Reading the log of changes.
 *
 * @module
 */
export { changes, changesJson, OPERATIONS } from "./changes.ts";
export type { Change, ChangesFilter, Operation } from "./changes.ts";
