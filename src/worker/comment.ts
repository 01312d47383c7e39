/**
 * What another Bemi's comment may mean, as JSON text, the likeliest first: see `comment_object()` in SQL, which has the
 * reasons.
 */
export function commentTexts(comment: string): readonly [string, string] {
  const text = comment === "null" || comment === "undefined" ? "{}" : unescaped(comment);
  return [text, text.replace(/, "SQL": "[^]*$/, "}")];
}

const ESCAPE = /%(2[1346AB]|3[BCEF]|40|5E|60|7C)/g;
const DJANGO = /^[A-Za-z0-9_{},:"'\\/=()% .~[\]-]*$/;

/** Takes back Django's percent-escapes. */
function unescaped(text: string): string {
  if (!/[{ ]"SQL": "/.test(text) || !DJANGO.test(text) || text.search(ESCAPE) < 0) return text;
  const isDoubled = !text.replaceAll("%%", "").includes("%");
  return (isDoubled ? text.replaceAll("%%", "%") : text)
    .replace(ESCAPE, (_, code: string) => String.fromCharCode(parseInt(code, 16)));
}
