import type { Command } from "commander";
import { rolesSql } from "../../install/mod.ts";
import type { Io } from "../io.ts";

export function addGenerate(program: Command, io: Io): void {
  const generate = program.command("generate").description("print SQL to read, and to run by hand");
  generate.command("roles")
    .description("roles of least privilege: a reader and a worker")
    .option("--schema <name>", "the schema that holds everything of Bemi's", "bemi")
    .addHelpText(
      "after",
      `
Example:
  bemi generate roles | psql "$DATABASE_URL"`,
    )
    .action(({ schema }: { schema: string }) => io.out(rolesSql({ schema })));
}
