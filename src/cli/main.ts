import { Command, CommanderError } from "commander";
import { onWarning } from "../context/warn.ts";
import { addAsOf } from "./commands/as-of.ts";
import { addChanges } from "./commands/changes.ts";
import { addDemo } from "./commands/demo.ts";
import { addDoctor } from "./commands/doctor.ts";
import { addGenerate } from "./commands/generate.ts";
import { addImportChanges } from "./commands/import-changes.ts";
import { addHistory } from "./commands/history.ts";
import { addInit } from "./commands/init.ts";
import { addMaintain } from "./commands/maintain.ts";
import { addMigrate } from "./commands/migrate.ts";
import { addRevert } from "./commands/revert.ts";
import { addReconcile } from "./commands/reconcile.ts";
import { addStatus } from "./commands/status.ts";
import { addTrack, addUntrack } from "./commands/track.ts";
import { addUninstall } from "./commands/uninstall.ts";
import { addWorker } from "./commands/worker.ts";
import { EXIT, report } from "./exit.ts";
import type { Io } from "./io.ts";
import { VERSION } from "./version.ts";

const HELP = `
Connection: --database-url, DATABASE_URL, PGHOST/PGPORT/PGDATABASE/PGUSER/PGPASSWORD,
or DB_HOST/DB_PORT/DB_NAME/DB_USER/DB_PASSWORD; the password also from ~/.pgpass or PGPASSFILE.

Exit codes: 0 ok, 1 failure, 2 usage, 3 cannot connect, 4 schema missing or incompatible,
5 WAL lost before it was read, 130 interrupted.`;

/** Runs the command line and returns the exit code. */
export async function main(args: readonly string[], io: Io): Promise<number> {
  const program = new Command("bemi")
    .description("Automatic, context-aware change tracking for PostgreSQL")
    .exitOverride()
    .showHelpAfterError("(see --help)")
    .configureOutput({ writeOut: io.out, writeErr: io.err })
    .version(VERSION, "-V, --version", "output the version")
    .helpCommand("help [command]", "display help for command")
    .addHelpText("after", HELP);
  for (
    const add of [
      addDemo,
      addInit,
      addWorker,
      addChanges,
      addRevert,
      addHistory,
      addAsOf,
      addTrack,
      addUntrack,
      addStatus,
      addDoctor,
      addMigrate,
      addMaintain,
      addReconcile,
      addImportChanges,
      addGenerate,
      addUninstall,
    ]
  ) add(program, io);
  onWarning((message) => io.err(`bemi: ${message}\n`));
  try {
    if (args.length === 0) {
      program.outputHelp({ error: true });
      return EXIT.usage;
    }
    await program.parseAsync([...args], { from: "user" });
    return EXIT.ok;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
    return report(error, io);
  }
}
