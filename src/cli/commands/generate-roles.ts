import type { Command } from "commander";
import { rolesSql } from "../../install/mod.ts";
import type { Io } from "../io.ts";
import { withSchemaOption } from "../options.ts";

export function addGenerateRoles(generate: Command, io: Io): void {
  withSchemaOption(generate.command("roles"))
    .description("roles of least privilege: for the application, a reader and a worker")
    .addHelpText(
      "after",
      `
Example:
  bemi generate roles | psql "$DATABASE_URL"`,
    )
    .action(({ schema }: { schema: string }) => io.out(rolesSql({ schema })));
}
