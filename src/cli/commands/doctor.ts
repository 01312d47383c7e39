import type { Command } from "commander";
import { doctor, type Finding } from "../../install/mod.ts";
import { withConnection } from "../connection.ts";
import { Drift } from "../exit.ts";
import type { Io } from "../io.ts";
import { type ConnectionOptions, withConnectionOptions } from "../options.ts";
import { paint } from "../paint.ts";

export function addDoctor(program: Command, io: Io): void {
  withConnectionOptions(program.command("doctor"))
    .description("find every way in which tracking is silently off or wrong; changes nothing")
    .option("--json", "one finding a line, as JSON")
    .addHelpText(
      "after",
      `
Prints the repair of each finding: SQL for psql, or a command. Exits with 1 where changes are lost or can be rewritten.

Examples:
  bemi doctor
  bemi doctor --json | jq -r 'select(.severity == "error").repair' | psql "$DATABASE_URL"`,
    )
    .action(async ({ databaseUrl, schema, json }: ConnectionOptions & { json?: true }) => {
      const findings = await withConnection(databaseUrl, io, (sql) => doctor(sql, { schema }));
      io.out(findings.map((finding) => json ? `${JSON.stringify(finding)}\n` : shown(finding, io)).join(""));
      const errors = findings.filter(({ severity }) => severity === "error").length;
      io.err(
        errors > 0 ? `${errors} to mend\n` : findings.length > 0 ? "Nothing is broken\n" : "All is well\n",
      );
      if (errors > 0) throw new Drift();
    });
}

const COLOURS = { error: "red", warning: "yellow", note: "blue" } as const;

function shown({ severity, name, object, problem, repair }: Finding, io: Io): string {
  return `${paint(io, COLOURS[severity], severity)} ${name}: ${object}\n  ${problem}\n  ${
    paint(io, "dim", "repair:")
  } ${repair}\n`;
}
