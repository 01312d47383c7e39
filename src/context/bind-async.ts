import { AsyncLocalStorage } from "node:async_hooks";

/** `fn`, called wherever, runs in the async context that is in force now. */
export function bindAsync<A extends unknown[], R>(fn: (...args: A) => R): (...args: A) => R {
  const run = AsyncLocalStorage.snapshot();
  return (...args) => run(fn, ...args);
}
