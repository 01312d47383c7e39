/** Puts a context, its parameter, in force until the transaction ends, and does not send it back. */
export const SET_CONTEXT = "select where set_config('bemi.context', $1, true) is null";

const ENCODER = new TextEncoder();
const HEX: readonly string[] = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));

/**
 * The statement that puts a context in force until the transaction ends, and does not send it back.
 * The text travels as hex (alphabet 0-9a-f), so nothing in it can be read as SQL.
 */
export function contextLiteralSql(text: string): string {
  let hex = "";
  for (const byte of ENCODER.encode(text)) hex += HEX[byte];
  return `select where set_config('bemi.context',convert_from(decode('${hex}','hex'),'UTF8'),true) is null`;
}
