/** What a key was and is; without `old` it was missing, without `new` it is. */
export interface Difference<Value = unknown> {
  /** Absent where there was none. */
  readonly old?: Value;
  /** Absent where there is none. */
  readonly new?: Value;
}

/**
 * The keys whose values differ between two rows, each with both. `bemi.diff(before, after)` is the same in SQL.
 * Numbers are as exact as they were read: see `numbers: "text"`.
 *
 * @example
 * ```ts
 * import { diff } from "@bemi/core/history";
 *
 * diff({ id: 1, task: "Sleep" }, { id: 1, task: "Eat" }); // { task: { old: "Sleep", new: "Eat" } }
 * ```
 */
export function diff<Row extends object>(
  before: Readonly<Row>,
  after: Readonly<Row>,
): { readonly [Key in keyof Row]?: Difference<Row[Key]> } {
  const [old, now] = [before, after] as [Record<string, unknown>, Record<string, unknown>];
  const result: [string, Difference][] = [];
  for (const key of new Set([...Object.keys(old), ...Object.keys(now)])) {
    const [had, has] = [Object.hasOwn(old, key), Object.hasOwn(now, key)];
    if (had === has && isSame(old[key], now[key])) continue;
    result.push([key, { ...(had ? { old: old[key] } : {}), ...(has ? { new: now[key] } : {}) }]);
  }
  return Object.fromEntries(result) as { [Key in keyof Row]?: Difference<Row[Key]> };
}

function isSame(a: unknown, b: unknown): boolean {
  if (Object.is(a, b)) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  if (a instanceof Date && b instanceof Date) return a.getTime() === b.getTime();
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length &&
    keys.every((key) => Object.hasOwn(b, key) && isSame(a[key as keyof typeof a], b[key as keyof typeof b]));
}
