import type { Context } from "./scope.ts";
import { warn } from "./warn.ts";

/** A context larger than this many bytes of JSON loses its largest keys: it is stored with every change. */
export const MAX_CONTEXT_BYTES: number = 64 * 1024;

export interface TextOptions {
  /** @default {@linkcode MAX_CONTEXT_BYTES} */
  readonly maxBytes?: number;
  /** Whether to escape all that is not printable ASCII. @default false */
  readonly isAscii?: boolean;
}

/** JSON text of a context that `jsonb` accepts. A larger one loses its largest keys, and says so. */
export function contextText(context: Context, options: TextOptions = {}): string {
  const { maxBytes = MAX_CONTEXT_BYTES, isAscii = false } = options;
  const values: Array<readonly [key: string, json: string]> = [];
  for (const key of Object.keys(context)) {
    const json = valueText(context, key);
    if (json === undefined) continue;
    const [name, value] = [storable(JSON.stringify(key)), storable(json)];
    values.push(isAscii ? [ascii(name), ascii(value)] : [name, value]);
  }
  return objectText(values, maxBytes);
}

function valueText(context: Context, key: string): string | undefined {
  try {
    return JSON.stringify(
      context[key],
      (_key, value) => typeof value === "bigint" ? String(value) : value,
    );
  } catch (error) {
    warn("a context value cannot be written as JSON: it was left out", error);
    return undefined;
  }
}

// jsonb has no NUL and no lone surrogate; JSON.stringify writes both as an escape, behind an even run of backslashes.
function storable(json: string): string {
  return json.replace(/(?<!\\)((?:\\\\)*)\\u(?:0000|d[89a-f][0-9a-f]{2})/g, "$1\\ufffd");
}

function ascii(json: string): string {
  return json.replace(/[^ -~]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

function objectText(values: ReadonlyArray<readonly [string, string]>, maxBytes: number): string {
  const text = written(values);
  // A UTF-16 unit takes three bytes at most: the usual context needs no counting.
  if (text.length * 3 <= maxBytes) return text;
  const size = ([key, json]: readonly [string, string]): number => byteLength(key) + byteLength(json) + 2;
  let total = values.reduce((sum, value) => sum + size(value), 2);
  let kept = values;
  if (total > maxBytes) {
    const dropped = new Set<string>();
    for (const value of [...values].sort((a, b) => size(b) - size(a))) {
      if (total <= maxBytes - 1024) break;
      dropped.add(value[0]);
      total -= size(value);
    }
    kept = values.filter(([key]) => !dropped.has(key));
    const names = [...dropped].map((key) => key.length > 100 ? '"..."' : key).slice(0, 8);
    kept = [...kept, ['"bemi_dropped"', `[${names.join(",")}]`]];
    warn(`a context exceeds ${maxBytes} bytes: its largest keys were left out`);
  }
  return written(kept);
}

function written(values: ReadonlyArray<readonly [string, string]>): string {
  return `{${values.map(([key, json]) => `${key}:${json}`).join(",")}}`;
}

function byteLength(text: string): number {
  return new TextEncoder().encode(text).length;
}
