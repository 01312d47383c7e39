/**
 * The members of a JSON object, each value as the text that it is, for numbers must not pass through JavaScript's.
 *
 * @param json an object, known to be valid
 */
export function jsonMembers(json: string): [key: string, value: string][] {
  const members: [string, string][] = [];
  let at = skipSpace(json, skipSpace(json, 0) + 1);
  while (json[at] !== "}") {
    const keyEnd = skipString(json, at);
    const start = skipSpace(json, skipSpace(json, keyEnd) + 1);
    const end = skipValue(json, start);
    members.push([JSON.parse(json.slice(at, keyEnd)) as string, json.slice(start, end).trimEnd()]);
    at = json[end] === "," ? skipSpace(json, end + 1) : end;
  }
  return members;
}

function skipSpace(text: string, at: number): number {
  while (text[at] === " " || text[at] === "\t" || text[at] === "\r" || text[at] === "\n") at++;
  return at;
}

/**
 * Where a string of JSON that begins there has ended. By indexOf and not by a pattern, which would need a stack as deep as
 * a text is long.
 */
export function skipString(text: string, start: number): number {
  for (let end = text.indexOf('"', start + 1);; end = text.indexOf('"', end + 1)) {
    if (end < 0) throw new Error("a string of JSON that does not end");
    let slashes = 0;
    while (text[end - 1 - slashes] === "\\") slashes++;
    if (slashes % 2 === 0) return end + 1;
  }
}

// Of valid text, so that counting brackets outside strings is enough.
function skipValue(text: string, start: number): number {
  let depth = 0;
  for (let at = start; at < text.length; at++) {
    const character = text[at];
    if (character === '"') at = skipString(text, at) - 1;
    else if (character === "{" || character === "[") depth++;
    else if (depth === 0 && (character === "," || character === "}")) return at;
    else if (character === "}" || character === "]") depth--;
  }
  throw new Error("a value of JSON that does not end");
}
