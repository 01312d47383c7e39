/** A warning that must never become the application's failure. */
export type WarningHandler = (message: string, cause?: unknown) => void;

// The names of an error, never its message: a message may quote the value that failed.
const print: WarningHandler = (message, cause) => {
  const suffix = cause instanceof Error ? ` (${cause.name})` : "";
  globalThis.console?.warn(`bemi: ${message}${suffix}`);
};

let handler: WarningHandler = print;

/**
 * Sends warnings elsewhere; without an argument, back to the console.
 *
 * @example
 * ```ts
 * import { onWarning } from "@bemi/core";
 * onWarning((message, cause) => console.error(message, cause));
 * ```
 */
export function onWarning(replacement: WarningHandler = print): void {
  handler = replacement;
}

export function warn(message: string, cause?: unknown): void {
  try {
    handler(message, cause);
  } catch {
    // A warning handler that throws must not break a write either.
  }
}
