/** The JSON text with each number in it, but not in its strings, written anew. */
export function mapNumbers(json: string, write: (number: string) => string): string {
  return json.replace(STRINGS_AND_NUMBERS, (token) => token[0] === '"' ? token : write(token));
}

const STRINGS_AND_NUMBERS = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
