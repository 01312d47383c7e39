import { type Command, Option } from "commander";
import { BemiError } from "../../errors.ts";
import { installSql, rolesSql, trackingSql } from "../../install/mod.ts";
import type { Io } from "../io.ts";
import { positiveInteger } from "../options.ts";

interface SqlOptions {
  readonly schema: string;
  readonly from?: number;
  readonly all?: true;
  readonly capture: "trigger" | "wal";
}

export function addGenerate(program: Command, io: Io): void {
  const generate = program.command("generate").description("print SQL to read, and to run by other means");
  generate.command("sql")
    .description("the installation, or an upgrade, as a migration")
    .argument("[table...]", "tables to track besides, written as in SQL")
    .option("--all", "track every table, and from then on each new one")
    .addOption(
      new Option("--capture <path>", "by triggers, or by a worker from the Write-Ahead Log")
        .choices(["trigger", "wal"]).default("trigger"),
    )
    .option("--from <version>", "upgrade from this version of the schema: see bemi status", positiveInteger)
    .option("--schema <name>", "the schema that holds everything of Bemi's", "bemi")
    .addHelpText(
      "after",
      `
Example:
  bemi generate sql --all > migrations/0042_bemi.sql`,
    )
    .action((tables: string[], { schema, from, all, capture }: SqlOptions) => {
      if (all && tables.length > 0) {
        throw new BemiError("usage", "Name tables or pass --all, not both", {
          hint: "bemi generate sql --all",
        });
      }
      io.out(installSql({ schema, from }));
      if (all || tables.length > 0) io.out(trackingSql(all ? undefined : tables, { schema, capture }));
    });
  generate.command("roles")
    .description("roles of least privilege: for the application, a reader and a worker")
    .option("--schema <name>", "the schema that holds everything of Bemi's", "bemi")
    .addHelpText(
      "after",
      `
Example:
  bemi generate roles | psql "$DATABASE_URL"`,
    )
    .action(({ schema }: { schema: string }) => io.out(rolesSql({ schema })));
}
