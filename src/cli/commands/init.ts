import { type Command, Option } from "commander";
import type postgres from "postgres";
import { BemiError } from "../../errors.ts";
import type { DatabaseLike } from "../../database/port.ts";
import {
  install,
  type PlannedTable,
  planTracking,
  seal,
  status,
  track,
  trackAll,
} from "../../install/mod.ts";
import { requireLogical } from "../../install/decodable.ts";
import { createSlot } from "../../worker/mod.ts";
import { withConnection } from "../connection.ts";
import { installedText } from "../installed-text.ts";
import type { Io } from "../io.ts";
import { type ConnectionOptions, withConnectionOptions } from "../options.ts";

interface Options extends ConnectionOptions {
  readonly all?: true;
  readonly capture?: "trigger" | "wal";
  readonly seal?: true;
  readonly failover?: true;
  readonly dryRun?: true;
}

export function addInit(program: Command, io: Io): void {
  withConnectionOptions(program.command("init"))
    .description("install or upgrade, and track tables; can be repeated")
    .argument("[table...]", "tables to track, written as in SQL")
    .option("--all", "track every table that was not untracked, and from now on each new one")
    .addOption(
      new Option(
        "--capture <path>",
        "by triggers, or by a worker from the Write-Ahead Log (default: as before, at first by triggers)",
      ).choices(["trigger", "wal"]),
    )
    .option("--failover", "let a standby keep the replication slot too (PostgreSQL 17)")
    .option("--seal", "let no role but the owner forge who did it, where the Write-Ahead Log is read")
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
      if (options.failover && options.capture !== "wal") {
        throw new BemiError("usage", "--failover is for a replication slot", {
          hint: "bemi init --capture wal --failover",
        });
      }
      await withConnection(options.databaseUrl, io, (sql) => init(sql, tables, options, io));
    });
}

async function init(sql: postgres.Sql, tables: readonly string[], options: Options, io: Io): Promise<void> {
  const { schema, capture } = options;
  // Whatever can be known to be wrong is found before anything is there.
  const steps = await dryRun(sql, tables, options);
  if (options.dryRun) return io.out(steps);
  io.err(installedText(schema, await install(sql, { schema })));
  const plan = await planned(sql, tables, options);
  if (capture === "wal") {
    const { slot, created } = await createSlot(sql, { schema, failover: options.failover });
    io.err(`${created ? "Created the replication slot" : "The replication slot is"} ${slot}\n`);
    const former = created
      ? (await status(sql, { schema })).tables.filter((table) => table.capture === "wal").length
      : 0;
    if (former > 0) {
      io.err(
        `Tracked from the Write-Ahead Log without it: ${former} table${former === 1 ? "" : "s"}. ` +
          "What was written to them and not read yet is lost. Run: bemi worker --once, then bemi reconcile\n",
      );
    }
    await warnOfUnboundedSlot(sql, io);
  }
  for (const step of plan) {
    await track(sql, step.table, { schema, capture: step.capture });
    io.err(`${said("Tracking", step)}\n`);
  }
  if (options.all) await trackAll(sql, { schema, capture });
  if (options.seal) {
    await seal(sql, { schema });
    io.err("Context messages are sealed\n");
  }
  const { tables: tracked, untracked, followsDdl, trackAll: tracksAll } = await status(sql, { schema });
  if (options.all && untracked.length > 0) {
    io.err(`Left out, as untracked before: ${untracked.join(", ")}. To track one: bemi track <table>\n`);
  }
  if (tables.length > 0 && tracksAll) {
    const others = tracked.length - new Set(plan.map(({ table }) => table)).size;
    io.err(
      `All tables are tracked since bemi init --all${
        others > 0 ? `, ${others} beside these` : ""
      }: see bemi status\n`,
    );
  }
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
      : `Next: change something, then: ${
        tracked.some((table) => table.capture === "wal") ? "bemi worker --once, and " : ""
      }bemi changes\n`,
  );
}

async function planned(
  sql: DatabaseLike,
  tables: readonly string[],
  { schema, capture, all }: Options,
): Promise<PlannedTable[]> {
  if (!all && tables.length === 0) return [];
  return await planTracking(sql, all ? undefined : tables, { schema, capture });
}

function said(verb: string, { table, capture, former, reason }: PlannedTable): string {
  if (reason !== undefined) return `${verb} ${table} by triggers, as ${reason}`;
  if (former === undefined) return `${verb} ${table}`;
  return `${verb} ${table} ${capture === "wal" ? "from the Write-Ahead Log" : "by triggers"} from now on`;
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

/** What would be done, found out by doing the part that locks no table of the application's, and taking it back. */
async function dryRun(sql: postgres.Sql, tables: readonly string[], options: Options): Promise<string> {
  const { schema, capture } = options;
  const lines: string[] = [];
  const undone = new Error("undone");
  await sql.begin(async (tx) => {
    const { from, to } = await install(tx, { schema });
    if (from === 0) lines.push(`create schema "${schema}"`);
    else if (from < to) lines.push(`upgrade schema "${schema}" from version ${from} to ${to}`);
    const plan = await planned(tx, tables, options);
    if (capture === "wal") {
      const [server] = await tx<{ wal_level: string; version: string }[]>`
        select current_setting('wal_level') as wal_level, version() as version`;
      requireLogical(server?.wal_level, server?.version);
      lines.push("create the publication and the replication slot where they are missing");
    }
    lines.push(...plan.map((step) => said("track", step)));
    if (options.all) lines.push("track each new table");
    if (options.seal) lines.push("seal the context messages");
    throw undone;
  }).catch((error: unknown) => {
    if (error !== undone) throw error;
  });
  return lines.map((line) => `${line}\n`).join("") || "Nothing to do\n";
}
