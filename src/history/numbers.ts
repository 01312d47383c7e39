/** How numbers are read: as JavaScript has them, which rounds large ones, or each as its exact decimal text. */
export type Numbers = "number" | "text";

/** Parses JSON; with `text`, every number becomes its decimal text: `12345678901234567890.10` stays what it is. */
export function parseJson(json: string, numbers: Numbers = "number"): unknown {
  return JSON.parse(numbers === "number" ? json : mapNumbers(json, (number) => `"${number}"`));
}

/** The JSON text with each number in it, but not in its strings, written anew. */
export function mapNumbers(json: string, write: (number: string) => string): string {
  return json.replace(STRINGS_AND_NUMBERS, (token) => token[0] === '"' ? token : write(token));
}

const STRINGS_AND_NUMBERS = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
