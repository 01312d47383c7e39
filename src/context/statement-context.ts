import { contextText } from "./context-text.ts";
import { bindToScope, currentContext, scopeKey } from "./scope.ts";

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
