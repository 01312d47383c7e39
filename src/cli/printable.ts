/** Text as a terminal may be given it: what would steer it is spelled. */
export function printable(text: string): string {
  return text.replace(
    // deno-lint-ignore no-control-regex
    /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g,
    (found) => `\\x${found.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`,
  );
}
