import type { Command } from "commander";
import { install } from "../../install/mod.ts";
import { withConnection } from "../connection.ts";
import type { Io } from "../io.ts";
import { type ConnectionOptions, withConnectionOptions } from "../options.ts";

export function addMigrate(program: Command, io: Io): void {
  withConnectionOptions(program.command("migrate"))
    .description("bring the schema to this version, and change nothing else")
    .addHelpText("after", "\nExample:\n  bemi migrate")
    .action(async ({ databaseUrl, schema }: ConnectionOptions) => {
      const { from, to } = await withConnection(databaseUrl, io, (sql) => install(sql, { schema }));
      io.err(`Schema "${schema}": version ${from} -> ${to}\n`);
    });
}
