import { type Command, Option } from "commander";
import { pino } from "pino";
import { parseLsn } from "../../worker/decode.ts";
import { runWorker, type WorkerEvent } from "../../worker/mod.ts";
import { connectionTarget, otherTarget } from "../connection.ts";
import { meaningOf } from "../exit.ts";
import type { Io } from "../io.ts";
import { listen } from "../listen/listen.ts";
import { workerState } from "../listen/worker-state.ts";
import {
  address,
  bytes,
  type ConnectionOptions,
  positiveInteger,
  withConnectionOptions,
} from "../options.ts";
import { openTelemetryTracer } from "../tracer.ts";

interface Options extends ConnectionOptions {
  readonly destinationUrl?: string;
  readonly mode: "auto" | "stream" | "poll";
  readonly acceptBemiMessages?: true;
  readonly slot?: string;
  readonly once?: true;
  readonly pollInterval: number;
  readonly listen?: { readonly host: string; readonly port: number };
  readonly readyLag: number;
  readonly recreateSlot?: true;
}

export function addWorker(program: Command, io: Io): void {
  withConnectionOptions(program.command("worker"))
    .description("read the Write-Ahead Log and write the log of changes")
    .option("--destination-url <url>", "the database that holds the log (default: the same)")
    .addOption(
      new Option("--mode <mode>", "how the WAL is read").choices(["auto", "stream", "poll"]).default("auto"),
    )
    .option("--slot <name>", "the replication slot (default: the one that bemi init made)")
    .option("--recreate-slot", "make the slot anew where it is lost, and record the gap")
    .option("--once", "end when all that is committed now is in the log")
    .option("--accept-bemi-messages", "take the contexts that another Bemi's triggers write")
    .option("--poll-interval <milliseconds>", "the longest pause when nothing happens", positiveInteger, 1000)
    .option(
      "--listen <[host:]port>",
      "serve /healthz, /readyz and /metrics, by default on 127.0.0.1",
      address,
    )
    .option("--ready-lag <size>", "not ready when further behind than this much WAL", bytes, bytes("256MB"))
    .addHelpText(
      "after",
      `
Runs until SIGTERM, which ends the round under way. A second worker stands by, and takes over. Exits with 5 where WAL
was lost before it was read: a restart does not help then, --recreate-slot does.

Examples:
  bemi worker
  bemi worker --listen 9187
  bemi worker --once --destination-url postgres://localhost/audit`,
    )
    .action(async (options: Options) => {
      const logger = pino(
        {
          base: null,
          timestamp: pino.stdTimeFunctions.isoTime,
          formatters: { level: (level) => ({ level }) },
        },
        {
          write: (line: string) => {
            io.progress?.("");
            io.err(line);
          },
        },
      );
      const show = io.progress && progressLine(io.progress);
      const state = workerState(options.mode === "poll" ? "poll" : "bulk");
      const worker = runWorker({
        source: connectionTarget(options.databaseUrl, io.env),
        destination: options.destinationUrl === undefined
          ? undefined
          : otherTarget(options.destinationUrl, io.env),
        schema: options.schema,
        slot: options.slot,
        mode: options.mode,
        once: options.once,
        pollInterval: options.pollInterval,
        recreateSlot: options.recreateSlot,
        acceptBemiMessages: options.acceptBemiMessages,
        tracer: await openTelemetryTracer(),
        log: (event) => {
          state.observe(event);
          if (event.kind === "slot") return;
          if (event.kind === "written" && event.setAside === 0 && show) show(event);
          else say(logger, event);
        },
      });
      io.onTerminate(() => void worker.stop().catch(() => {}));
      await using _worker = worker;
      await using listener = options.listen && await listen({
        ...options.listen,
        readyLag: options.readyLag,
        state: () => state.current,
        turnedAt: () => worker.turnedAt,
      });
      if (listener) logger.info({ url: listener.url }, "Listening");
      await worker.finished;
    });
}

/** Rate, lag in bytes and seconds, and how long it will take to catch up at this rate. */
function progressLine(progress: (line: string) => void): (event: WorkerEvent & { kind: "written" }) => void {
  let total = 0;
  let at = Date.now();
  let previous: bigint | undefined;
  return ({ written, lsn, lag, delay }) => {
    const seconds = Math.max(0.001, (Date.now() - at) / 1000);
    const position = parseLsn(lsn);
    const bytesPerSecond = previous === undefined ? 0 : Number(position - previous) / seconds;
    const left = bytesPerSecond > 0 ? `, ${Math.ceil(Number(lag) / bytesPerSecond)} s left` : "";
    total += written;
    at = Date.now();
    previous = position;
    progress(
      `${total.toLocaleString("en")} changes, ${Math.round(written / seconds).toLocaleString("en")}/s, ${
        (Number(lag) / 1e6).toFixed(1)
      } MB and ${(delay / 1000).toFixed(1)} s behind${left}`,
    );
  };
}

const MESSAGES: Readonly<Record<WorkerEvent["kind"], string>> = {
  started: "Reading the Write-Ahead Log",
  reading: "How the Write-Ahead Log is read",
  written: "Changes written",
  slot: "Where the slot stands",
  gap:
    "Part of the Write-Ahead Log was lost before it was read: the gap is recorded, and bemi reconcile closes it",
  "slot-created": "Made the replication slot anew",
  heartbeat: "A heartbeat came back",
  "heartbeat-refused": "This role may not write heartbeats: the slot moves with what others write",
  "maintenance-failed": "The partitions could not be looked after: run bemi maintain as the owner",
  standby: "Another worker holds the slot: standing by",
  retry: "Trying again",
  stopped: "Stopped",
};

function say(logger: pino.Logger, { kind, ...event }: WorkerEvent): void {
  const fields = Object.fromEntries(
    Object.entries({ ...event, ...("code" in event ? { reason: meaningOf(event.code) } : {}) })
      .map(([key, value]) => [key, typeof value === "bigint" ? Number(value) : value]),
  );
  if (kind === "heartbeat") return logger.debug(fields, MESSAGES[kind]);
  const isBad = kind === "heartbeat-refused" || kind === "gap" || kind === "retry" ||
    kind === "maintenance-failed" ||
    ("setAside" in event && event.setAside > 0);
  logger[isBad ? "warn" : "info"](fields, MESSAGES[kind]);
}
