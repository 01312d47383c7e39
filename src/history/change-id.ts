import { BemiError } from "../errors.ts";

/**
 * A change's id, if the text is one.
 *
 * @throws {BemiError} `usage`
 */
export function changeId(text: string): string {
  if (/^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text)) return text;
  throw new BemiError("usage", "A change is named by its id, a UUID", {
    hint: "See: bemi changes --json",
  });
}
