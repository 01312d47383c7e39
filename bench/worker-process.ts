import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const bin = fileURLToPath(new URL("../dist/src/cli/bin-poll.js", import.meta.url));

/** The built `bemi-poll` in a process of its own, with what the kernel says of it (Linux). */
export interface WorkerProcess extends AsyncDisposable {
  /** Seconds of a core that it has used so far. */
  cpuSeconds(): number;
  /** Megabytes that are resident now. */
  residentMegabytes(): number;
  /** The most that ever were. */
  peakMegabytes(): number;
  /** What it logged. */
  log(): string;
  /** Settles with its exit code. */
  readonly ended: Promise<number | null>;
}

/** Starts a worker; `npm run bench` builds it first. */
export function workerProcess(url: string, args: readonly string[] = []): WorkerProcess {
  const child: ChildProcess = spawn(process.execPath, [bin, "--database-url", url, ...args], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  let log = "";
  child.stderr?.on("data", (chunk: Uint8Array) => log = (log + chunk.toString()).slice(-20_000));
  const ended = once(child, "exit").then(([code]) => code as number | null);
  const read = (file: string): string => readFileSync(`/proc/${child.pid}/${file}`, "utf8");
  const megabytes = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(read("status"))?.[1]) / 1024;
  return {
    cpuSeconds: () => {
      // Behind the name, which may hold anything: state, then from the 12th field on user and system time in ticks.
      const fields = read("stat").replace(/^.*\) /s, "").split(" ");
      return (Number(fields[11]) + Number(fields[12])) / 100;
    },
    residentMegabytes: () => megabytes("VmRSS"),
    peakMegabytes: () => megabytes("VmHWM"),
    log: () => log,
    ended,
    [Symbol.asyncDispose]: async () => {
      child.kill("SIGTERM");
      await ended;
    },
  };
}

/** Waits until `condition` holds, or fails after a time in milliseconds. */
export async function until(
  what: string,
  condition: () => Promise<boolean>,
  timeout = 60_000,
): Promise<void> {
  const end = Date.now() + timeout;
  while (!await condition()) {
    if (Date.now() > end) throw new Error(`It took too long until ${what}`);
    await new Promise((done) => setTimeout(done, 200));
  }
}
