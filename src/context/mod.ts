export { currentContext, mergeContext, withContext } from "./scope.ts";
export type { Context, ContextLike, ContextOptions } from "./scope.ts";
export { onWarning } from "./warn.ts";
export type { WarningHandler } from "./warn.ts";
