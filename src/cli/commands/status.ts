import type { Command } from "commander";
import { status } from "../../install/mod.ts";
import { withConnection } from "../connection.ts";
import type { Io } from "../io.ts";
import { type ConnectionOptions, withConnectionOptions } from "../options.ts";
import { psqlTable } from "../psql-table.ts";

export function addStatus(program: Command, io: Io): void {
  withConnectionOptions(program.command("status"))
    .description("show what is installed and which tables are tracked")
    .option("--json", "as one JSON object")
    .addHelpText("after", "\nExample:\n  bemi status --json")
    .action(async ({ databaseUrl, schema, json }: ConnectionOptions & { json?: true }) => {
      const found = await withConnection(databaseUrl, io, (sql) => status(sql, { schema }));
      if (json) return io.out(`${JSON.stringify(found)}\n`);
      io.out(
        psqlTable(
          ["schema", "table", "capture", "ignore", "mask", "strict"],
          found.tables.map((
            t,
          ) => [t.schema, t.table, t.capture, t.ignore.join(","), t.mask.join(","), t.strict ? "yes" : ""]),
        ),
      );
      io.err(
        `Schema "${schema}" has version ${found.version}; new tables are ${
          found.trackAll ? "" : "not "
        }tracked by themselves\n`,
      );
    });
}
