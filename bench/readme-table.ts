import { readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { version as nodeVersion } from "node:process";
import { fileURLToPath } from "node:url";
import type { Headline } from "./measure.ts";

const README = fileURLToPath(new URL("../README.md", import.meta.url));
const BEGIN = "<!-- npm run bench -->";
const END = "<!-- /npm run bench -->";

/** Puts what was measured between the marks in the README. */
export function writeTable(headlines: readonly Headline[], version: string): void {
  const text = readFileSync(README, "utf8");
  const begin = text.indexOf(BEGIN);
  const end = text.indexOf(END);
  if (begin < 0 || end < begin) throw new Error(`README.md has no ${BEGIN} … ${END}`);
  const titles = [...new Set(headlines.map(({ title }) => title))];
  // The line above the table says which version it was.
  const cell = (cellText: string): string =>
    cellText.replace(`, PostgreSQL ${version}`, "").replaceAll("|", "\\|");
  const rows = titles.flatMap((title) =>
    headlines.filter((line) => line.title === title).map(({ name, baseline, figures }, i) =>
      `| ${[i === 0 ? title : "", name, baseline, figures].map(cell).join(" | ")} |`
    )
  );
  const table = [
    BEGIN,
    `PostgreSQL ${version}, Node ${nodeVersion}, ${cpus().length} cores:`,
    "",
    "| what | which | beside | measured |",
    "| --- | --- | --- | --- |",
    ...rows,
    "",
  ].join("\n");
  writeFileSync(README, text.slice(0, begin) + table + text.slice(end));
}
