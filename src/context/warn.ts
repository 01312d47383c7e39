/** A warning that must never become the application's failure. */
export type WarningHandler = (message: string, cause?: unknown) => void;

const print: WarningHandler = (message, cause) => {
  globalThis.console?.warn(`bemi: ${message}${cause instanceof Error ? told(cause) : ""}`);
};

// The name of an error, its code and where it was thrown, never its message: a message may quote the value that failed.
function told(error: Error & { readonly code?: unknown }): string {
  const { name, message, code, stack = "" } = error;
  const frames = stack.replace(message, "").split("\n").filter((line) => /^ +at .*:\d+\)?$/.test(line)).slice(
    0,
    5,
  );
  return [` (${name}${/^\w+$/.test(String(code ?? "")) ? ` ${String(code)}` : ""})`, ...frames].join("\n");
}

let handler: WarningHandler = print;

/**
 * Sends warnings elsewhere, with the error behind them, whose message may quote what failed; without an argument, back to
 * the console, which is told the error's name, code and place alone.
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
