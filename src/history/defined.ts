import { BemiError } from "../errors.ts";

/**
 * What narrows a read or a revert, and is there but `undefined`, would make it everything: a key that was never looked
 * up, or nobody who is signed in.
 *
 * @param whose what the names are those of: `The filter's`
 * @throws {BemiError} `usage`
 */
export function requireDefined(given: object, names: readonly string[], whose: string): void {
  const present = Object.entries(given).filter(([name]) => names.includes(name));
  for (const [name, value] of present) {
    const values: readonly unknown[] = Array.isArray(value) ? value : [value];
    for (const missing of [undefined, null]) {
      if (!values.includes(missing)) continue;
      throw new BemiError("usage", `${whose} ${name} is ${String(missing)}`, {
        hint: "Pass a value, or leave it out.",
      });
    }
  }
}
