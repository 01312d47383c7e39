import { type ChildProcess, spawn } from "node:child_process";
import { rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath, pathToFileURL } from "node:url";
import type { Random } from "./random.ts";

const bin = fileURLToPath(new URL("../../dist/src/cli/bin-poll.js", import.meta.url));

/** How long a worker may take to end when it is asked to: longer than it takes to notice a silent network. */
const PATIENCE = 300_000;

/** What a worker said last that it does. */
export type Doing = "reading" | "standing by" | "beginning";

/** What in its log says so. */
const SAYS: readonly (readonly [Doing, string])[] = [
  ["reading", "How the Write-Ahead Log is read"],
  ["standing by", "standing by"],
  ["beginning", "Trying again"],
];

/** The workers, each in a process of its own. */
export interface Fleet extends Disposable {
  readonly running: readonly ChildProcess[];
  /** Those that read the WAL, as they say. */
  readonly reading: readonly ChildProcess[];
  /** Starts one whose clock is off by so many milliseconds. */
  start(clockOff: number): void;
  /** Brings the dead back, up to as many as there should be. */
  keepEnough(): void;
  /** Kills one, whatever it does. */
  kill(worker: ChildProcess): void;
  /** How many were killed, by what they did. */
  readonly killed: Readonly<Record<Doing, number>>;
  /** Asks one to end. */
  ask(worker: ChildProcess): void;
  /** How many were asked long ago, and live; they are killed then. */
  killTheDeaf(): number;
  /** What each said last. */
  lastWords(): string;
}

interface Facts {
  said: string;
  doing: Doing;
  isKilled: boolean;
  askedAt?: number;
}

export interface FleetOptions {
  readonly url: string;
  readonly next: Random;
  /** How many workers there should be. */
  readonly size: number;
  readonly onExit: (code: number, said: string) => void;
}

export function openFleet({ url, next, size, onExit }: FleetOptions): Fleet {
  const workers = new Map<ChildProcess, Facts>();
  const killed = { "reading": 0, "standing by": 0, "beginning": 0 };
  const clock = join(tmpdir(), `bemi-chaos-clock-${process.pid}-${Math.random().toString(36).slice(2)}.mjs`);
  writeFileSync(
    clock,
    `const off = Number(process.env.CLOCK_OFF ?? 0);
    const now = Date.now;
    Date.now = () => now() + off;`,
  );
  const start = (clockOff: number): void => {
    const mode = ["auto", "auto", "stream", "poll"][next(4)] as string;
    const options = ["--database-url", url, "--poll-interval", "50", "--mode", mode, "--recreate-slot"];
    const worker = spawn(process.execPath, ["--import", pathToFileURL(clock).href, bin, ...options], {
      stdio: ["ignore", "ignore", "pipe"],
      env: { ...process.env, CLOCK_OFF: String(clockOff) },
    });
    const facts: Facts = { said: "", doing: "beginning", isKilled: false };
    workers.set(worker, facts);
    worker.stderr.on("data", (chunk: Uint8Array) => {
      facts.said = (facts.said + chunk.toString()).slice(-2000);
      const [last] = SAYS.map(([doing, text]) => ({ doing, at: facts.said.lastIndexOf(text) }))
        .filter(({ at }) => at >= 0).sort((a, b) => b.at - a.at);
      facts.doing = last?.doing ?? facts.doing;
    });
    worker.once("exit", (code) => {
      workers.delete(worker);
      if (code !== null && code !== 0) onExit(code, facts.said.trim());
    });
  };
  return {
    get running() {
      return [...workers.keys()];
    },
    get reading() {
      return [...workers].filter(([, { doing, isKilled }]) => doing === "reading" && !isKilled)
        .map(([worker]) => worker);
    },
    start,
    keepEnough: () => {
      while (workers.size < size) start(0);
    },
    kill: (worker) => {
      const facts = workers.get(worker);
      if (!facts || facts.isKilled || !worker.kill("SIGKILL")) return;
      facts.isKilled = true;
      killed[facts.doing]++;
    },
    killed,
    ask: (worker) => {
      const facts = workers.get(worker);
      if (facts) facts.askedAt ??= Date.now();
      worker.kill("SIGTERM");
    },
    killTheDeaf: () => {
      const deaf = [...workers].filter(([, { askedAt = Infinity }]) => Date.now() - askedAt > PATIENCE);
      for (const [worker] of deaf) worker.kill("SIGKILL");
      return deaf.length;
    },
    lastWords: () =>
      [...workers].map(([{ pid }, { said }]) => `worker ${pid} said last: ${said.slice(-600)}`).join("\n"),
    [Symbol.dispose]: () => {
      for (const worker of workers.keys()) worker.kill("SIGKILL");
      rmSync(clock, { force: true });
    },
  };
}
