import { skipString } from "./json-members.ts";

/** The JSON text with each number in it, but not in its strings, written anew. */
export function mapNumbers(json: string, write: (number: string) => string): string {
  const tokens = /"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
  let mapped = "";
  let copied = 0;
  for (let match = tokens.exec(json); match; match = tokens.exec(json)) {
    const [token] = match;
    if (token === '"') {
      tokens.lastIndex = skipString(json, match.index);
      continue;
    }
    mapped += json.slice(copied, match.index) + write(token);
    copied = tokens.lastIndex;
  }
  return mapped + json.slice(copied);
}
