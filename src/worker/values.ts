import { BemiError } from "../errors.ts";

/** How the text of a type becomes JSON, as `to_jsonb` has it. */
export type ValueType =
  | {
    readonly kind:
      | "string"
      | "number"
      | "float"
      | "boolean"
      | "json"
      | "timestamp"
      | "timestamptz"
      | "hstore";
  }
  | { readonly kind: "vector"; readonly element: ValueType }
  | { readonly kind: "array"; readonly element: ValueType; readonly delimiter: string }
  | {
    readonly kind: "composite";
    readonly fields: readonly { readonly name: string; readonly type: ValueType }[];
  };

export const STRING: ValueType = { kind: "string" };

/** The same as {@linkcode toJson}, or `undefined` where it is no text of that type, as when the type was altered unnoticed. */
export function tryToJson(text: string, type: ValueType): string | undefined {
  try {
    return toJson(text, type);
  } catch {
    // What it says is of no use to anybody: it must not hold the value.
    return undefined;
  }
}

/**
 * The text of a value, as the server prints it under {@linkcode VALUE_SETTINGS}, to JSON text. Exact: no number is parsed.
 *
 * @throws {BemiError} `decode_failed` where it is no text of that type
 */
function toJson(text: string, type: ValueType): string {
  switch (type.kind) {
    case "number":
      return isJsonNumber(text) ? text : JSON.stringify(text);
    case "float":
      return isJsonNumber(text) ? plainNumber(text) : JSON.stringify(text);
    case "boolean":
      return text === "t" || text === "true" ? "true" : "false";
    case "json":
      return text;
    case "timestamp":
      return `"${text.replace(" ", "T")}"`.replace(/T(?=BC"$)/, " ");
    case "timestamptz":
      return timestamptz(text);
    case "vector":
      return `[${text.split(" ").filter(Boolean).map((part) => toJson(part, type.element)).join(", ")}]`;
    case "array":
      return arrayToJson(text, type);
    case "composite":
      return compositeToJson(text, type);
    case "hstore":
      return hstoreToJson(text);
    case "string":
      return JSON.stringify(text);
  }
}

// NaN, Infinity and -Infinity are the only numbers that JSON has not.
function isJsonNumber(text: string): boolean {
  const last = text.charCodeAt(text.length - 1);
  return last >= 0x30 && last <= 0x39;
}

/** A number as jsonb prints it: `1e-05` becomes `0.00001`, and `-0`, which a numeric has not, `0`. */
export function plainNumber(text: string): string {
  const match = /^(-?)(\d+)(?:\.(\d+))?[eE]([+-]?\d+)$/.exec(text);
  if (!match) return text === "-0" ? "0" : text;
  const [, sign = "", whole = "", fraction = "", exponent] = match;
  const digits = whole + fraction;
  const point = whole.length + Number(exponent);
  if (point <= 0) return `${sign}0.${"0".repeat(-point)}${digits}`;
  if (point >= digits.length) return `${sign}${digits}${"0".repeat(point - digits.length)}`;
  return `${sign}${digits.slice(0, point)}.${digits.slice(point)}`;
}

// `2026-11-01 12:00:00.5+00` becomes `2026-11-01T12:00:00.5+00:00`; infinity stays.
function timestamptz(text: string): string {
  // The common form, at UTC as the connection has it.
  if (text[10] === " " && text.endsWith("+00")) return `"${text.slice(0, 10)}T${text.slice(11)}:00"`;
  const match = /^(\S+) (\S+?)([+-]\d\d)(:\d\d)?(:\d\d)?( BC)?$/.exec(text);
  if (!match) return JSON.stringify(text);
  const [, date, time, hours, minutes = ":00", seconds = "", era = ""] = match;
  return `"${date}T${time}${hours}${minutes}${seconds}${era}"`;
}

interface Cursor {
  readonly text: string;
  at: number;
}

// PostgreSQL documentation, 8.15.6: an optional `[2:4]=`, then braces; quoted elements escape with a backslash.
function arrayToJson(text: string, type: ValueType & { kind: "array" }): string {
  const cursor = { text, at: text.startsWith("[") ? text.indexOf("=") + 1 : 0 };
  const json = arrayLevel(cursor, type);
  if (cursor.at !== text.length) throw unexpected("array");
  return json;
}

function arrayLevel(cursor: Cursor, type: ValueType & { kind: "array" }): string {
  const { text } = cursor;
  if (text[cursor.at] !== "{") throw unexpected("array");
  cursor.at++;
  let json = "[";
  while (text[cursor.at] !== "}") {
    if (cursor.at >= text.length) throw unexpected("array");
    if (json !== "[") json += ", ";
    if (text[cursor.at] === "{") json += arrayLevel(cursor, type);
    else if (text[cursor.at] === '"') json += toJson(quoted(cursor), type.element);
    else {
      const start = cursor.at;
      while (cursor.at < text.length && text[cursor.at] !== type.delimiter && text[cursor.at] !== "}") {
        cursor.at++;
      }
      const element = text.slice(start, cursor.at);
      json += element === "NULL" ? "null" : toJson(element, type.element);
    }
    if (text[cursor.at] === type.delimiter) cursor.at++;
  }
  cursor.at++;
  return json + "]";
}

/** Text in double quotes; a backslash takes the next character as it is, and so does a doubled quote. */
function quoted(cursor: Cursor): string {
  const { text } = cursor;
  let value = "";
  let start = ++cursor.at;
  for (; cursor.at < text.length; cursor.at++) {
    const character = text[cursor.at];
    if (character === "\\") {
      value += text.slice(start, cursor.at);
      start = ++cursor.at;
    } else if (character === '"') {
      value += text.slice(start, cursor.at);
      if (text[cursor.at + 1] !== '"') {
        cursor.at++;
        return value;
      }
      start = ++cursor.at;
    }
  }
  throw unexpected("quoted value");
}

// PostgreSQL documentation, 8.16.6: nothing between two commas is NULL.
function compositeToJson(text: string, type: ValueType & { kind: "composite" }): string {
  const cursor = { text, at: 1 };
  const members: string[] = [];
  for (const field of type.fields) {
    const name = JSON.stringify(field.name);
    let value: string | undefined;
    while (cursor.at < text.length - 1 && text[cursor.at] !== ",") {
      if (text[cursor.at] === '"') {
        value = (value ?? "") + quoted(cursor);
        continue;
      }
      if (text[cursor.at] === "\\") cursor.at++;
      value = (value ?? "") + text[cursor.at++];
    }
    members.push(`${name}: ${value === undefined ? "null" : toJson(value, field.type)}`);
    cursor.at++;
  }
  if (cursor.at < text.length) throw unexpected("composite");
  return `{${members.join(", ")}}`;
}

function hstoreToJson(text: string): string {
  const cursor = { text, at: 0 };
  const members: string[] = [];
  while (cursor.at < text.length) {
    const key = quoted(cursor);
    if (!text.startsWith("=>", cursor.at)) throw unexpected("hstore");
    cursor.at += 2;
    const isNull = text.startsWith("NULL", cursor.at);
    if (isNull) cursor.at += 4;
    members.push(`${JSON.stringify(key)}: ${isNull ? "null" : JSON.stringify(quoted(cursor))}`);
    if (text.startsWith(", ", cursor.at)) cursor.at += 2;
  }
  return `{${members.join(", ")}}`;
}

function unexpected(what: string): BemiError {
  return new BemiError("decode_failed", `The text of a value is no ${what}`, {
    hint: "This is a defect of Bemi's: please report the column's type, without the value.",
  });
}

/** What every connection that prints values sets, so that they read the same whoever configured the server. */
export const VALUE_SETTINGS: Readonly<Record<string, string>> = {
  DateStyle: "ISO, MDY",
  TimeZone: "UTC",
  IntervalStyle: "postgres",
  bytea_output: "hex",
  extra_float_digits: "1",
  client_encoding: "UTF8",
  quote_all_identifiers: "off",
  // What regclass and its like call by their names alone.
  search_path: "pg_catalog, pg_temp",
};
