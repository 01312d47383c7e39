/**
 * The context of a change: who, where and how.
 *
 * @module
 */
export { currentContext, mergeContext, onWarning, withContext } from "./src/context/mod.ts";
export type { Context, ContextLike, ContextOptions, WarningHandler } from "./src/context/mod.ts";
export { BemiError } from "./src/errors.ts";
export type { BemiErrorCode } from "./src/errors.ts";
