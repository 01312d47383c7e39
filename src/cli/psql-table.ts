import { printable } from "./printable.ts";

/** Rows as psql prints them: centred headings, left-aligned cells, and a count. */
export function psqlTable(columns: readonly string[], rows: readonly (readonly (string | null)[])[]): string {
  // Of what has no columns, for there is no row to tell them.
  if (columns.length === 0) return "(0 rows)\n";
  const cells = rows.map((row) => row.map((cell) => printable(cell ?? "").replaceAll("\n", "↵")));
  const widths = columns.map((column, i) =>
    cells.reduce((most, row) => Math.max(most, width(row[i] ?? "")), width(column))
  );
  const heading = columns.map((column, i) => centred(column, widths[i] ?? 0)).join("|");
  const rule = widths.map((w) => "-".repeat(w + 2)).join("+");
  const lines = cells.map((row) =>
    row.map((cell, i) => ` ${cell}${" ".repeat((widths[i] ?? 0) - width(cell))} `).join("|").trimEnd()
  );
  return `${[heading.trimEnd(), rule, ...lines].join("\n")}\n(${rows.length} row${
    rows.length === 1 ? "" : "s"
  })\n`;
}

function centred(text: string, w: number): string {
  const left = Math.floor((w - width(text)) / 2);
  return ` ${" ".repeat(left)}${text}${" ".repeat(w - width(text) - left)} `;
}

function width(text: string): number {
  return [...text].length;
}
