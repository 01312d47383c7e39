import type { Command } from "commander";
import { maintain } from "../../install/mod.ts";
import { withConnection } from "../connection.ts";
import type { Io } from "../io.ts";
import { type ConnectionOptions, withConnectionOptions } from "../options.ts";

export function addMaintain(program: Command, io: Io): void {
  withConnectionOptions(program.command("maintain"))
    .description("make partitions ahead, and drop those past their retention; run it daily")
    .option("--json", "one JSON object a line")
    .addHelpText("after", "\nExample:\n  bemi maintain --database-url postgres://localhost/app")
    .action(async ({ databaseUrl, schema, json }: ConnectionOptions & { json?: true }) => {
      const steps = await withConnection(databaseUrl, io, (sql) => maintain(sql, { schema }));
      for (const step of steps) {
        io.out(json ? `${JSON.stringify(step)}\n` : `${step.action} ${step.partition}\n`);
      }
      if (steps.length === 0) io.err("Nothing to do\n");
    });
}
