/**
 * A row as the log has it: for each column the JSON text of its value, exactly as the server wrote it. Numbers never
 * pass through JavaScript's.
 */
export type Image = ReadonlyMap<string, string>;

/** Reads a JSON object as the server writes `jsonb`: each member's value stays the text that it is. */
export function readImage(json: string): Image {
  const image = new Map<string, string>();
  for (let at = 1; json[at] === '"' || json[at] === " ";) {
    const start = json.indexOf('"', at);
    const colon = endOfValue(json, start);
    const end = endOfValue(json, colon + 2);
    image.set(JSON.parse(json.slice(start, colon)) as string, json.slice(colon + 2, end));
    at = end + 1;
  }
  return image;
}

// By indexOf and not by a pattern, which would need a stack as deep as a text is long.
function endOfValue(json: string, start: number): number {
  let depth = 0;
  for (let at = start; at < json.length; at++) {
    const char = json[at];
    if (char === '"') at = endOfString(json, at) - 1;
    else if (char === "{" || char === "[") depth++;
    else if (char === "}" || char === "]") depth--;
    else if (depth > 0 || char !== "," && char !== ":") continue;
    else return at;
    if (depth < 0) return at;
    if (depth === 0 && (char === '"' || char === "}" || char === "]")) return at + 1;
  }
  throw new Error("an object of JSON that does not end");
}

function endOfString(json: string, start: number): number {
  for (let end = json.indexOf('"', start + 1); end > 0; end = json.indexOf('"', end + 1)) {
    let slashes = 0;
    while (json[end - 1 - slashes] === "\\") slashes++;
    if (slashes % 2 === 0) return end + 1;
  }
  throw new Error("a string of JSON that does not end");
}

/** An image as one JSON object. */
export function imageJson(image: Image): string {
  return `{${[...image].map(([column, value]) => `${JSON.stringify(column)}: ${value}`).join(", ")}}`;
}

/** Some columns of an image as a text to compare by, or `undefined` where one is missing or NULL. */
export function tupleOf(image: Image | undefined, columns: readonly string[]): string | undefined {
  const values = columns.map((column) => image?.get(column));
  if (columns.length === 0 || values.some((value) => value === undefined || value === "null")) {
    return undefined;
  }
  return values.join(",");
}

export function isSame(image: Image, other: Image): boolean {
  return image.size === other.size && differences(image, other).size === 0;
}

/** The columns of `image` that have another value in `other`, or none at all. */
export function differences(image: Image, other: Image): Map<string, string> {
  return new Map([...image].filter(([column, value]) => other.get(column) !== value));
}

/** An image without some columns. */
export function without(image: Image, columns: readonly string[]): Image {
  return columns.length === 0 ? image : new Map([...image].filter(([column]) => !columns.includes(column)));
}
