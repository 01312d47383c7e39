import type { Command } from "commander";
import { historyJson } from "../../history/mod.ts";
import { changeText } from "../change-text.ts";
import { withConnection } from "../connection.ts";
import type { Io } from "../io.ts";
import { type ConnectionOptions, positiveInteger, withConnectionOptions } from "../options.ts";

interface Options extends ConnectionOptions {
  readonly limit?: number;
  readonly json?: true;
}

export function addHistory(program: Command, io: Io): void {
  withConnectionOptions(program.command("history"))
    .description("show what happened to one row, oldest first: under every key and table name that it had")
    .argument("<table>", "a table, with or without its schema; also one that is dropped")
    .argument("<key>", "the primary key's text, or a JSON array of several columns")
    .option("--limit <n>", "the latest so many", positiveInteger)
    .option("--json", "one JSON object a line, numbers exact")
    .addHelpText(
      "after",
      "\nExamples:\n  bemi history todos 42\n  bemi history app.todos 42 --json | jq .context.user_id",
    )
    .action(async (table: string, key: string, { databaseUrl, schema, limit, json }: Options) => {
      const lines = await withConnection(
        databaseUrl,
        io,
        (sql) => historyJson(sql, table, key, { schema, page: { limit } }),
      );
      io.out(lines.map((line) => json ? `${line}\n` : changeText(line, io)).join(json ? "" : "\n"));
      if (lines.length === 0) io.err(`bemi: the log has no change of this row\n`);
    });
}
