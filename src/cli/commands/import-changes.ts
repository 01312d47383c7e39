import type { Command } from "commander";
import { importChanges } from "../../install/mod.ts";
import { withConnection } from "../connection.ts";
import type { Io } from "../io.ts";
import { type ConnectionOptions, withConnectionOptions } from "../options.ts";

export function addImportChanges(program: Command, io: Io): void {
  withConnectionOptions(program.command("import-changes"))
    .description("take over the changes that another Bemi's worker recorded")
    .argument("[table]", "the table that it wrote", "public.changes")
    .addHelpText(
      "after",
      `
Stop the other worker first. A table public.changes is renamed, and the view takes its name.

Example:
  bemi import-changes --database-url postgres://localhost/app`,
    )
    .action(async (table: string, { databaseUrl, schema }: ConnectionOptions) => {
      const { imported, known, renamed } = await withConnection(
        databaseUrl,
        io,
        (sql) => importChanges(sql, table, { schema }),
      );
      io.err(`Imported ${imported} changes${known > 0 ? `; ${known} were in the log already` : ""}\n`);
      if (renamed) {
        io.err(`"changes" is the view of the log now. The table is ${renamed}: drop it when you like\n`);
      }
    });
}
