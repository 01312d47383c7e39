import { type ChildProcess, spawn } from "node:child_process";
import { rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import postgres from "postgres";
import { install, track } from "../../src/install/mod.ts";
import { createSlot, runWorker } from "../../src/worker/mod.ts";
import { startServer } from "../support/servers.ts";
import { client, NAMES, TABLES } from "./clients.ts";
import { FAULTS, type World } from "./faults.ts";
import { verify } from "./oracles.ts";
import { openProxy, pause } from "./proxy.ts";
import { random } from "./random.ts";

const bin = fileURLToPath(new URL("../../dist/src/cli/bin-poll.js", import.meta.url));

export interface ChaosOptions {
  readonly minutes: number;
  readonly seed: number;
  readonly server: string;
  /** Milliseconds between two faults, at most. */
  readonly pause: number;
  readonly log: (line: string) => void;
}

export interface ChaosResult {
  readonly faults: Readonly<Record<string, number>>;
  readonly transactions: number;
  readonly changes: number;
  readonly gaps: number;
  readonly problems: readonly string[];
}

/** Random load and random faults for some minutes; then what the oracles say. */
export async function chaos(
  { minutes, seed, server: version, pause: longest, log }: ChaosOptions,
): Promise<ChaosResult> {
  const server = await startServer(version, [
    "fsync=off",
    "max_connections=60",
    "wal_sender_timeout=3s",
    "max_wal_size=4GB",
  ]);
  const { hostname, port } = new URL(server.url());
  using proxy = await openProxy(() => ({ host: hostname, port: Number(port) }));
  const workerUrl = `postgres://postgres@127.0.0.1:${proxy.port}/postgres`;
  const clock = join(tmpdir(), `bemi-chaos-clock-${process.pid}.mjs`);
  writeFileSync(
    clock,
    `const off = Number(process.env.CLOCK_OFF ?? 0);
    const now = Date.now;
    Date.now = () => now() + off;`,
  );
  const workers = new Set<ChildProcess>();
  const lastWords = new Map<ChildProcess, string>();
  let isRunning = true;
  let isPaused = false;
  const next = random(seed);
  const startWorker = (clockOff: number): void => {
    const mode = ["auto", "auto", "stream", "poll"][next(4)] as string;
    const worker = spawn(
      process.execPath,
      [
        "--import",
        pathToFileURL(clock).href,
        bin,
        "--database-url",
        workerUrl,
        "--poll-interval",
        "50",
        "--mode",
        mode,
        "--recreate-slot",
      ],
      { stdio: ["ignore", "ignore", "pipe"], env: { ...process.env, CLOCK_OFF: String(clockOff) } },
    );
    worker.stderr.on(
      "data",
      (chunk: Uint8Array) =>
        lastWords.set(worker, ((lastWords.get(worker) ?? "") + chunk.toString()).slice(-2000)),
    );
    workers.add(worker);
    worker.once("exit", (code) => {
      workers.delete(worker);
      if (code !== null && code !== 0 && isRunning) {
        log(`a worker ended with ${code}: ${lastWords.get(worker)?.trim()}`);
      }
      lastWords.delete(worker);
    });
  };
  const keepTwo = (): void => {
    while (workers.size < 2) startWorker(0);
  };
  const caughtUp = async (sql: postgres.Sql): Promise<boolean> => {
    const [row] = await sql<{ done: boolean }[]>`
      select coalesce(c.end_lsn >= w.lsn, false) as done
      from (select pg_current_wal_flush_lsn() - 65536 * 2 as lsn) w left join bemi.checkpoints c on true`;
    return row?.done ?? false;
  };
  const world: World = {
    server,
    proxy,
    next,
    workers: () => [...workers],
    startWorker,
    atRest: async (fn) => {
      isPaused = true;
      const sql = postgres(server.url(), { max: 1, onnotice() {} });
      try {
        await pause(500);
        // What runs now ends; then everything is read, past a mark that was written last.
        await sql.unsafe("select pg_logical_emit_message(true, 'chaos', repeat('x', 200000))");
        for (let i = 0; !await caughtUp(sql); i++) {
          if (i > 600) {
            throw new Error(
              `the worker does not catch up: ${
                [...lastWords.values()].map((said) => said.slice(-600)).join("\n")
              }`,
            );
          }
          keepTwo();
          await pause(50);
        }
        await fn(sql);
      } finally {
        await sql.end({ timeout: 1 });
        isPaused = false;
      }
    },
  };

  const faults: Record<string, number> = {};
  try {
    const setup = postgres(server.url(), { max: 1, onnotice() {} });
    await install(setup);
    await createSlot(setup);
    await setup.unsafe(TABLES);
    for (const name of NAMES) await track(setup, name, { capture: "wal" });
    await setup.end();

    const clients = [1, 2, 3, 4].map((who) =>
      client({ url: server.url(), who, seed, isRunning: () => isRunning, isPaused: () => isPaused })
    );
    const end = Date.now() + minutes * 60_000;
    const names = Object.keys(FAULTS);
    while (Date.now() < end) {
      await pause(longest / 8 + next(longest));
      keepTwo();
      const name = names[next(names.length)] as string;
      try {
        await FAULTS[name]?.(world);
        faults[name] = (faults[name] ?? 0) + 1;
      } catch (error) {
        log(`${name} could not be done: ${String(error)}`);
      }
    }
    isRunning = false;
    const journals = await Promise.all(clients);
    for (const worker of workers) worker.kill("SIGTERM");
    while (workers.size > 0) await pause(50);
    await runWorker({ source: server.url(), once: true }).finished;

    const sql = postgres(server.url(), { max: 2, onnotice() {} });
    const { changes, problems } = await verify(sql, journals);
    const [{ gaps } = { gaps: 0 }] = await sql<
      { gaps: number }[]
    >`select count(*)::int as gaps from bemi.gaps`;
    const [{ aside } = { aside: 0 }] = await sql<
      { aside: number }[]
    >`select count(*)::int as aside from bemi.set_aside`;
    if (aside > 0) problems.push(`${aside} changes were set aside`);
    await sql.end();
    return { faults, transactions: journals.flat().length, changes, gaps, problems };
  } finally {
    isRunning = false;
    for (const worker of workers) worker.kill("SIGKILL");
    rmSync(clock, { force: true });
    await server.remove();
  }
}
