import { BemiError } from "./errors.ts";

/** The schema that everything lives in, unless another is named. */
export const DEFAULT_SCHEMA: string = "bemi";

/** Quotes an SQL identifier: `Be mi` becomes `"Be mi"`. */
export function quoteIdentifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/**
 * Checks a schema name and returns it quoted. Names stand inside function bodies and format strings,
 * so those that could end either are refused rather than escaped in two ways at once.
 *
 * @throws {BemiError} `invalid_name`
 */
export function quoteSchema(schema: string): string {
  // deno-lint-ignore no-control-regex
  if (!/^[^"'\\$%\u0000-\u001f]+$/.test(schema) || new TextEncoder().encode(schema).length > 63) {
    throw new BemiError("invalid_name", "The schema name cannot be used", {
      hint: "Choose 1 to 63 bytes without quotes, backslash, $, % or control characters.",
    });
  }
  if (/^pg_/i.test(schema) || schema === "information_schema" || schema === "public") {
    throw new BemiError("invalid_name", `The schema "${schema}" belongs to others`, {
      hint: 'Choose a schema of its own, such as "bemi": uninstall removes it whole.',
    });
  }
  return quoteIdentifier(schema);
}

/** Quotes an SQL string as quote_literal() does: for any setting of standard_conforming_strings. */
export function quoteLiteral(text: string): string {
  const quoted = `'${text.replaceAll("\\", "\\\\").replaceAll("'", "''")}'`;
  return text.includes("\\") ? `E${quoted}` : quoted;
}
