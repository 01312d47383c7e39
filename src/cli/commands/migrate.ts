import type { Command } from "commander";
import { install } from "../../install/mod.ts";
import { withConnection } from "../connection.ts";
import { installedText } from "../installed-text.ts";
import type { Io } from "../io.ts";
import { type ConnectionOptions, withConnectionOptions } from "../options.ts";

export function addMigrate(program: Command, io: Io): void {
  withConnectionOptions(program.command("migrate"))
    .description("bring the schema to this version, and change nothing else")
    .addHelpText("after", "\nExample:\n  bemi migrate")
    .action(async ({ databaseUrl, schema }: ConnectionOptions) => {
      const result = await withConnection(databaseUrl, io, (sql) => install(sql, { schema }));
      io.err(installedText(schema, result));
    });
}
