/** Puts a context, its parameter, in force until the transaction ends. */
export const SET_CONTEXT = "select set_config('bemi.context', $1, true)";

/**
 * The statement that puts a context in force until the transaction ends.
 * The text travels as hex (alphabet 0-9a-f), so nothing in it can be read as SQL.
 */
export function contextLiteralSql(text: string): string {
  let hex = "";
  for (const byte of new TextEncoder().encode(text)) hex += byte.toString(16).padStart(2, "0");
  return `select set_config('bemi.context',convert_from(decode('${hex}','hex'),'UTF8'),true)`;
}
