import type { Command } from "commander";
import { reconcile } from "../../install/mod.ts";
import { withConnection } from "../connection.ts";
import type { Io } from "../io.ts";
import { type ConnectionOptions, withConnectionOptions } from "../options.ts";

interface Options extends ConnectionOptions {
  readonly destinationUrl?: string;
}

export function addReconcile(program: Command, io: Io): void {
  withConnectionOptions(program.command("reconcile"))
    .description(
      "after a gap: record what differs between the log and the rows, while the application goes on",
    )
    .argument(
      "[table...]",
      "tables, written as in SQL (default: all that are tracked from the Write-Ahead Log)",
    )
    .option("--destination-url <url>", "the database that holds the log (default: the same)")
    .addHelpText(
      "after",
      `
The worker compares each row with the log's last image of it, so it has to run, now or later. What differs becomes a
change with {"db": {"reconciled": true}} in its context.

Examples:
  bemi reconcile
  bemi changes --context '{"db": {"reconciled": true}}'`,
    )
    .action(async (tables: string[], { databaseUrl, destinationUrl, schema }: Options) => {
      await withConnection(databaseUrl, io, async (sql) => {
        const options = { schema, tables: tables.length > 0 ? tables : undefined };
        const results = destinationUrl === undefined
          ? await reconcile(sql, options)
          : await withConnection(destinationUrl, io, (log) => reconcile(sql, { ...options, log }));
        for (const { table, isCompared, absent } of results) {
          io.err(
            isCompared
              ? `${table}: the worker compares its rows${
                absent > 0 ? `, and records ${absent} that are gone` : ""
              }\n`
              : `${table}: has no primary key, and cannot be compared\n`,
          );
        }
      });
    });
}
