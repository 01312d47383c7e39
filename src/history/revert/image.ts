import { jsonMembers } from "../../json-members.ts";

/**
 * A row as the log has it: for each column the JSON text of its value, exactly as the server wrote it. Numbers never
 * pass through JavaScript's.
 */
export type Image = ReadonlyMap<string, string>;

/** Reads an image as the server writes `jsonb`. */
export function readImage(json: string): Image {
  return new Map(jsonMembers(json));
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
