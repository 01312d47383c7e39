import { BemiError } from "../errors.ts";

/** A primary key: of one column its value or its text, of several the text of a JSON array. */
export type Key = string | number | bigint;

/**
 * A key as the log has it.
 *
 * @throws {BemiError} `usage` where JavaScript has rounded it, and it may be another row's
 */
export function keyText(key: Key): string {
  if (typeof key !== "number" || !Number.isInteger(key) || Number.isSafeInteger(key)) return String(key);
  throw new BemiError("usage", "The key is larger than a JavaScript number holds exactly", {
    hint: "Pass it as text, or as a bigint.",
  });
}
