import { objectMembers } from "./message.ts";

/**
 * A context without what the application said, and marked so: for a database whose encoding lacks a character that it
 * escaped, as `\u00e9` in SQL_ASCII, to which it is no JSON. `undefined` where it holds no such escape.
 */
export function reducedContext(context: string): string | undefined {
  if (!ESCAPE.test(context)) return undefined;
  const members = objectMembers(context)?.filter(([key, value]) => KEPT.includes(key) && !ESCAPE.test(value));
  return members &&
    `{${members.map(([key, value]) => `"${key}": ${key === "db" ? marked(value) : value}`).join(", ")}}`;
}

const KEPT: readonly string[] = ["jwt", "client", "SQL", "db"];

/** Of a character beyond ASCII; a backslash that is itself escaped begins none. */
const ESCAPE = /(?<!\\)(?:\\\\)*\\u(?!00[0-7])/i;

function marked(db: string): string {
  return db.includes('"context_error"') ? db : db.replace(/\}$/, ', "context_error": "not a JSON object"}');
}
