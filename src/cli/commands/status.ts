import { setTimeout } from "node:timers/promises";
import type { Command } from "commander";
import type postgres from "postgres";
import { type Status, status } from "../../install/mod.ts";
import { otherTarget, withConnection } from "../connection.ts";
import { Drift } from "../exit.ts";
import type { Io } from "../io.ts";
import { type ConnectionOptions, positiveInteger, withConnectionOptions } from "../options.ts";
import { statusScreen } from "../status-screen.ts";

interface Options extends ConnectionOptions {
  readonly destinationUrl?: string;
  readonly json?: true;
  /** Seconds. */
  readonly watch?: number | true;
}

export function addStatus(program: Command, io: Io): void {
  withConnectionOptions(program.command("status"))
    .description("show how tracking stands: tables, slot, worker, log, gaps")
    .option("--destination-url <url>", "the database that holds the log (default: the same)")
    .option("--watch [seconds]", "again and again", positiveInteger)
    .option("--json", "as one JSON object a line")
    .addHelpText(
      "after",
      `
Shows what the role may see, and names the rest. Exits with 1 where changes were lost.

Examples:
  bemi status
  bemi status --watch
  bemi status --json | jq .slot.timeToLoss`,
    )
    .action(async (options: Options) => {
      const { destinationUrl } = options;
      if (destinationUrl !== undefined) otherTarget(destinationUrl, io.env);
      const isLossy = await withConnection(
        options.databaseUrl,
        io,
        (sql) =>
          destinationUrl === undefined
            ? show(sql, undefined, options, io)
            : withConnection(destinationUrl, io, (log) => show(sql, log, options, io)),
      );
      if (!isLossy) return;
      io.err("Changes were lost: see bemi doctor\n");
      throw new Drift();
    });
}

/** Milliseconds between the two looks that a rate takes. */
const LOOK = 1000;

async function show(
  sql: postgres.Sql,
  log: postgres.Sql | undefined,
  { schema, json, watch }: Options,
  io: Io,
): Promise<boolean> {
  const stopping = new AbortController();
  io.onTerminate(() => stopping.abort());
  const look = (since?: Status): Promise<Status> => status(sql, { schema, log, since });
  let found = await look();
  if (found.slot?.safeWalSize !== undefined) {
    await pause(LOOK, stopping.signal);
    found = await look(found);
  }
  const interval = watch === undefined ? undefined : 1000 * (watch === true ? 2 : watch);
  for (;;) {
    const text = json ? `${JSON.stringify(found)}\n` : statusScreen(found, schema, io);
    const isRedrawn = interval !== undefined && !json && io.columns !== undefined;
    io.out(isRedrawn ? `\u001b[H\u001b[2J${text}` : text);
    if (interval === undefined || stopping.signal.aborted) return found.isLossy;
    await pause(interval, stopping.signal);
    if (stopping.signal.aborted) return found.isLossy;
    if (!json && !isRedrawn) io.out("\n");
    found = await look(found);
  }
}

function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return setTimeout(milliseconds, undefined, { signal }).catch(() => {});
}
