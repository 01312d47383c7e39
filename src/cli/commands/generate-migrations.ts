import { type Command, Option } from "commander";
import { BemiError } from "../../errors.ts";
import { migration, type MigrationKind } from "../../install/mod.ts";
import type { Io } from "../io.ts";
import { writeMigration } from "../migration-file.ts";
import { positiveInteger, withSchemaOption } from "../options.ts";

interface Options {
  readonly schema: string;
  readonly from?: number;
  readonly all?: true;
  readonly capture: "trigger" | "wal";
  readonly out?: string;
}

const KINDS: Readonly<Record<MigrationKind, { readonly does: string; readonly example: string }>> = {
  sql: {
    does: "the installation, or an upgrade, as a script",
    example: "bemi generate sql --all > migrations/0042_bemi.sql",
  },
  drizzle: {
    does: "the same as a custom migration of drizzle-kit's",
    example: "bemi generate drizzle todos lists --out drizzle",
  },
  prisma: {
    does: "the same as a migration of Prisma's",
    example: "bemi generate prisma --all --out prisma/migrations",
  },
  supabase: {
    does: "the same as a migration of Supabase's",
    example: "bemi generate supabase --all --out supabase/migrations",
  },
};

export function addGenerateMigrations(generate: Command, io: Io): void {
  for (const [name, { does, example }] of Object.entries(KINDS)) {
    const kind = name as MigrationKind;
    withSchemaOption(generate.command(kind))
      .description(does)
      .argument("[table...]", "tables to track besides, written as in SQL")
      .option("--all", "track every table, and from then on each new one")
      .addOption(
        new Option("--capture <path>", "by triggers, or by a worker from the Write-Ahead Log")
          .choices(["trigger", "wal"]).default("trigger"),
      )
      .option("--from <version>", "upgrade from this version of the schema: see bemi status", positiveInteger)
      .option(
        "--out <folder>",
        "write it into this folder of migrations, under the name that the tool expects",
      )
      .addHelpText("after", `\nExample:\n  ${example}`)
      .action((tables: string[], { schema, from, all, capture, out }: Options) => {
        if (all && tables.length > 0) {
          throw new BemiError("usage", "Name tables or pass --all, not both", {
            hint: `bemi generate ${kind} --all`,
          });
        }
        const text = migration(kind, { tables: all ? "all" : tables, schema, from, capture });
        if (out === undefined) io.out(text);
        else io.err(`Wrote ${writeMigration(kind, out, text)}\n`);
      });
  }
}
