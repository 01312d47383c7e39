import type { Command } from "commander";
import { asOfJson } from "../../history/mod.ts";
import { mapNumbers } from "../../json-numbers.ts";
import { withConnection } from "../connection.ts";
import type { Io } from "../io.ts";
import { type ConnectionOptions, explainTime, timestamp, withConnectionOptions } from "../options.ts";
import { psqlTable } from "../psql-table.ts";

interface Options extends ConnectionOptions {
  readonly key?: string;
  readonly json?: true;
}

export function addAsOf(program: Command, io: Io): void {
  withConnectionOptions(program.command("as-of"))
    .description("show the rows of a table as they were at a time, in today's columns")
    .argument("<table>", "a tracked table, with or without its schema")
    .argument("<time>", "such as 2026-11-01 or '2026-11-01 12:00:00+00'", timestamp)
    .option("--key <key>", "only the row with this primary key; a JSON array of several columns")
    .option("--json", "one JSON object a line, numbers exact")
    .addHelpText(
      "after",
      "\nExamples:\n  bemi as-of todos '2026-11-03 09:00+00'\n  bemi as-of todos 2026-11-03 --key 42 --json",
    )
    .action(async (table: string, time: string, { databaseUrl, schema, key, json }: Options) => {
      const lines = await withConnection(
        databaseUrl,
        io,
        (sql) =>
          asOfJson(sql, table, time, key === undefined ? { schema } : { schema, key }).catch(explainTime),
        // Which columns came or went since.
        (message) => io.err(`${message}\n`),
      );
      io.out(json ? lines.map((line) => `${line}\n`).join("") : rowsTable(lines));
    });
}

function rowsTable(lines: readonly string[]): string {
  // Each value as the server wrote it: a number is not read, and so not rounded.
  const rows = lines.map((line) =>
    JSON.parse(mapNumbers(line, (number) => `"${number}"`)) as Record<string, unknown>
  );
  const columns = Object.keys(rows[0] ?? {});
  return psqlTable(
    columns,
    rows.map((row) =>
      columns.map((column) => {
        const value = row[column];
        if (value === null) return null;
        return typeof value === "object" ? JSON.stringify(value) : String(value);
      })
    ),
  );
}
