import { type Command, Option } from "commander";
import type postgres from "postgres";
import { BemiError } from "../../errors.ts";
import { install, status, track, trackableTables, trackAll } from "../../install/mod.ts";
import { createSlot } from "../../worker/mod.ts";
import { withConnection } from "../connection.ts";
import type { Io } from "../io.ts";
import { type ConnectionOptions, withConnectionOptions } from "../options.ts";

interface Options extends ConnectionOptions {
  readonly all?: true;
  readonly capture: "trigger" | "wal";
  readonly dryRun?: true;
}

export function addInit(program: Command, io: Io): void {
  withConnectionOptions(program.command("init"))
    .description("install or upgrade, and track tables; can be repeated")
    .argument("[table...]", "tables to track, written as in SQL")
    .option("--all", "track every table, and from now on each new one")
    .addOption(
      new Option("--capture <path>", "by triggers, or by a worker from the Write-Ahead Log")
        .choices(["trigger", "wal"]).default("trigger"),
    )
    .option("--dry-run", "say what would be done, and do nothing")
    .addHelpText(
      "after",
      `
Examples:
  bemi init --all
  bemi init --all --capture wal
  bemi init todos app.lists --database-url postgres://localhost/app`,
    )
    .action(async (tables: string[], options: Options) => {
      if (options.all && tables.length > 0) {
        throw new BemiError("usage", "Name tables or pass --all, not both", { hint: "bemi init --all" });
      }
      await withConnection(options.databaseUrl, io, (sql) => init(sql, tables, options, io));
    });
}

async function init(sql: postgres.Sql, tables: readonly string[], options: Options, io: Io): Promise<void> {
  const { schema } = options;
  if (options.dryRun) {
    io.out(await plan(sql, tables, options));
    return;
  }
  const { from, to } = await install(sql, { schema });
  io.err(
    from === to
      ? `Schema "${schema}" is up to date (version ${to})\n`
      : `Schema "${schema}": version ${from} -> ${to}\n`,
  );
  const { capture } = options;
  if (capture === "wal") {
    const { slot, created } = await createSlot(sql, { schema });
    io.err(`${created ? "Created the replication slot" : "The replication slot is"} ${slot}\n`);
    await warnOfUnboundedSlot(sql, io);
  }
  if (options.all) {
    for (const table of await trackAll(sql, { schema, capture })) io.err(`Tracking ${table}\n`);
  }
  for (const table of tables) {
    await track(sql, table, { schema, capture });
    io.err(`Tracking ${table}\n`);
  }
  const { tables: tracked, followsDdl } = await status(sql, { schema });
  if (!followsDdl) {
    io.err(
      `This role may not create event triggers: run bemi init again after adding ${
        options.all ? "tables or " : ""
      }partitions\n`,
    );
  }
  io.err(
    tracked.length === 0
      ? "Nothing is tracked yet. Next: bemi track <table>, or bemi init --all\n"
      : `Next: change something, then: ${capture === "wal" ? "bemi worker --once, and " : ""}bemi changes\n`,
  );
}

// A slot keeps WAL for a worker that is down: without a limit until the disk is full.
async function warnOfUnboundedSlot(sql: postgres.Sql, io: Io): Promise<void> {
  const [row] = await sql<{ setting: string }[]>`
    select setting from pg_settings where name = 'max_slot_wal_keep_size'`;
  if (row?.setting !== "-1") return;
  io.err(
    "max_slot_wal_keep_size is not set: while no worker runs, the disk can fill up. As a superuser:\n" +
      "  alter system set max_slot_wal_keep_size = '10GB'; select pg_reload_conf();\n",
  );
}

async function plan(sql: postgres.Sql, tables: readonly string[], options: Options): Promise<string> {
  const { schema } = options;
  const installed = await status(sql, { schema }).catch((error: unknown) => {
    if (error instanceof BemiError && error.code === "schema_missing") return undefined;
    throw error;
  });
  const lines = [installed ? `upgrade schema "${schema}" if needed` : `create schema "${schema}"`];
  if (options.capture === "wal") {
    lines.push("create the publication and the replication slot where they are missing");
  }
  if (options.all && installed) {
    lines.push(...(await trackableTables(sql, { schema })).map((table) => `track ${table}`));
  } else if (options.all) lines.push("track every table");
  lines.push(...tables.map((table) => `track ${table}`));
  return `${lines.join("\n")}\n`;
}
