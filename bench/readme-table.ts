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
  const cell = (cellText: string): string => cellText.replaceAll("|", "\\|");
  const rows = titles.flatMap((title) =>
    headlines.filter((line) => line.title === title)
      .map(({ name, figures }, i) => `| ${i === 0 ? cell(title) : ""} | ${cell(name)} | ${cell(figures)} |`)
  );
  const table = [
    BEGIN,
    `PostgreSQL ${version}, Node ${nodeVersion}, ${cpus().length} cores:`,
    "",
    "| what | which | measured |",
    "| --- | --- | --- |",
    ...rows,
    "",
  ].join("\n");
  writeFileSync(README, text.slice(0, begin) + table + text.slice(end));
}
