import { type Command, Option } from "commander";
import { baseline, track, untrack } from "../../install/mod.ts";
import { inSchema } from "../../install/schema.ts";
import { withConnection } from "../connection.ts";
import type { Io } from "../io.ts";
import { type ConnectionOptions, list, withConnectionOptions } from "../options.ts";

interface Options extends ConnectionOptions {
  readonly capture?: "trigger" | "wal";
  readonly ignore?: string[];
  readonly mask?: string[];
  readonly strict?: boolean;
  readonly polled?: boolean;
  readonly baseline?: true;
}

export function addTrack(program: Command, io: Io): void {
  withConnectionOptions(program.command("track"))
    .description("track tables, or change how they are tracked")
    .argument("<table...>", "tables, written as in SQL")
    .addOption(new Option("--capture <path>", "how their changes are captured").choices(["trigger", "wal"]))
    .option("--ignore <columns>", "an UPDATE of these alone records nothing", list)
    .option("--mask <columns>", "leave these out of every copy", list)
    .option("--strict", "a change that cannot be recorded fails")
    .option("--no-strict", "a change that cannot be recorded leaves a gap marker")
    .option("--polled", "UPDATE and DELETE often match nothing: let those cost nothing (with --capture wal)")
    .option("--no-polled", "they seldom do")
    .option(
      "--baseline",
      "record the rows that are there, as SNAPSHOT changes; goes on where it was interrupted",
    )
    .addHelpText(
      "after",
      `
Examples:
  bemi track people --ignore updated_at --mask password,token
  bemi track todos --baseline`,
    )
    .action(async (tables: string[], { databaseUrl, baseline: hasBaseline, ...options }: Options) => {
      await withConnection(databaseUrl, io, async (sql) => {
        for (const table of tables) {
          await track(sql, table, options);
          io.err(`Tracking ${table}\n`);
          if (!hasBaseline) continue;
          const rows = await baseline(sql, table, { schema: options.schema });
          io.err(`Recorded ${rows} rows of ${table}\n`);
        }
      });
    });
}

export function addUntrack(program: Command, io: Io): void {
  withConnectionOptions(program.command("untrack"))
    .description("stop tracking tables, until track or init names them; what is in the log stays")
    .argument("<table...>", "tables, written as in SQL")
    .addHelpText("after", "\nExample:\n  bemi untrack people")
    .action(async (tables: string[], { databaseUrl, schema }: ConnectionOptions) => {
      await withConnection(databaseUrl, io, async (sql) => {
        for (const table of tables) {
          const [known] = await sql.unsafe(
            inSchema(schema, 'select from "bemi".tracked_tables where relation = to_regclass($1)'),
            [table],
          ).catch(() => [undefined]);
          await untrack(sql, table, { schema });
          io.err(known ? `No longer tracking ${table}\n` : `${table} was not tracked\n`);
        }
      });
    });
}
