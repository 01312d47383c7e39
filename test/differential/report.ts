import type { Outcome } from "./run.ts";

/** What differs in a scenario, and its statements with what came of each. */
export function report({ scenario, differences, statements, results }: Outcome): string {
  const cut = (text: string, length: number): string =>
    text.length > length ? `${text.slice(0, length)}…` : text;
  return [
    ...differences.slice(0, 10).map((line) => cut(line, 1500)),
    ...scenario.settings.map(({ by, name, value }) => `Set by the ${by}: ${name} = ${value}`),
    "Statements:",
    ...statements.map(({ sql }, i) => `  ${results[i] ?? "?"}: ${cut(sql, 600)};`),
  ].join("\n");
}
