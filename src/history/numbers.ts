import { mapNumbers } from "../json-numbers.ts";

/** How numbers are read: as JavaScript has them, which rounds large ones, or each as its exact decimal text. */
export type Numbers = "number" | "text";

/** Parses JSON; with `text`, every number becomes its decimal text: `12345678901234567890.10` stays what it is. */
export function parseJson(json: string, numbers: Numbers = "number"): unknown {
  return JSON.parse(numbers === "number" ? json : mapNumbers(json, (number) => `"${number}"`));
}
