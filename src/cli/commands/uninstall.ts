import type { Command } from "commander";
import { BemiError } from "../../errors.ts";
import { uninstall } from "../../install/mod.ts";
import { withConnection } from "../connection.ts";
import type { Io } from "../io.ts";
import { type ConnectionOptions, withConnectionOptions } from "../options.ts";

export function addUninstall(program: Command, io: Io): void {
  withConnectionOptions(program.command("uninstall"))
    .description("remove everything of Bemi's, the log of changes included")
    .option("--yes", "really")
    .addHelpText("after", "\nExample:\n  bemi uninstall --yes")
    .action(async ({ databaseUrl, schema, yes }: ConnectionOptions & { yes?: true }) => {
      if (!yes) {
        throw new BemiError(
          "usage",
          `This would delete the schema "${schema}" with all changes recorded in it`,
          {
            hint: "Add --yes to do it. To stop recording and keep the log: bemi untrack <table>",
          },
        );
      }
      await withConnection(databaseUrl, io, (sql) => uninstall(sql, { schema }));
      io.err(`Removed the schema "${schema}"\n`);
    });
}
