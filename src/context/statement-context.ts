import { bindToScope, type Context, currentContext, scopeKey } from "./scope.ts";
import { warn } from "./warn.ts";

/** A context larger than this many bytes of JSON loses its largest keys: it is stored with every change. */
export const MAX_CONTEXT_BYTES: number = 64 * 1024;

const cache: WeakMap<object, { revision: number; text: string }> = new WeakMap();

/**
 * The context in force here as the JSON text that a statement carries, or `undefined` outside a context.
 * Never throws: what JSON or jsonb cannot hold is left out, with a warning.
 */
export function statementContext(): string | undefined {
  const context = currentContext();
  const key = scopeKey();
  if (!context || !key) return undefined;
  const [scope, revision] = key;
  const cached = cache.get(scope);
  if (cached?.revision === revision) return cached.text;
  const text = contextText(context);
  cache.set(scope, { revision, text });
  return text;
}

/** {@linkcode statementContext} of the scope that is entered now, or where there is none, of the one at the call. */
export function laterStatementContext(): () => string | undefined {
  return bindToScope(statementContext);
}

/** JSON text of a context that `jsonb` accepts, within {@linkcode MAX_CONTEXT_BYTES}. */
export function contextText(context: Context): string {
  const values: Array<readonly [key: string, json: string]> = [];
  for (const key of Object.keys(context)) {
    const json = valueText(context, key);
    if (json !== undefined) values.push([storable(JSON.stringify(key)), storable(json)]);
  }
  return objectText(values);
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

function objectText(values: ReadonlyArray<readonly [string, string]>): string {
  const size = ([key, json]: readonly [string, string]): number => byteLength(key) + byteLength(json) + 2;
  let total = values.reduce((sum, value) => sum + size(value), 2);
  let kept = values;
  if (total > MAX_CONTEXT_BYTES) {
    const dropped = new Set<string>();
    for (const value of [...values].sort((a, b) => size(b) - size(a))) {
      if (total <= MAX_CONTEXT_BYTES - 1024) break;
      dropped.add(value[0]);
      total -= size(value);
    }
    kept = values.filter(([key]) => !dropped.has(key));
    const names = [...dropped].map((key) => key.length > 100 ? '"…"' : key).slice(0, 8);
    kept = [...kept, ['"bemi_dropped"', `[${names.join(",")}]`]];
    warn(`a context exceeds ${MAX_CONTEXT_BYTES} bytes: its largest keys were left out`);
  }
  return `{${kept.map(([key, json]) => `${key}:${json}`).join(",")}}`;
}

function byteLength(text: string): number {
  return new TextEncoder().encode(text).length;
}
