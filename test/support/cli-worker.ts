import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { SCHEMA } from "./installation.ts";

const bin = fileURLToPath(new URL("../../dist/src/cli/bin-poll.js", import.meta.url));

/** A worker in a process of its own, that listens. */
export interface ListeningWorker extends AsyncDisposable {
  readonly child: ChildProcess;
  /** What it logged. */
  readonly log: () => string;
  get(path: string): Promise<{ status: number; body: string }>;
}

/** Starts the built `bemi-poll` with a port that is free, and waits until it answers there. */
export async function listeningWorker(
  env: Readonly<Record<string, string>>,
  args: readonly string[] = [],
): Promise<ListeningWorker> {
  const child = spawn(process.execPath, [bin, "--listen", "0", "--schema", SCHEMA, ...args], {
    env: { PATH: process.env.PATH ?? "", ...env },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let log = "";
  const url = await new Promise<string>((done, fail) => {
    child.stderr?.on("data", (chunk: Uint8Array) => {
      log += chunk.toString();
      const [, found] = /"url":"(http:[^"]+)"/.exec(log) ?? [];
      if (found) done(found);
    });
    child.once("exit", (code) => fail(new Error(`The worker ended with ${code}: ${log}`)));
  });
  return {
    child,
    log: () => log,
    get: async (path) => {
      const response = await fetch(new URL(path, url));
      return { status: response.status, body: await response.text() };
    },
    [Symbol.asyncDispose]: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      // A slot that is still being read keeps its database from being dropped.
      const exit = once(child, "exit");
      child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), 20_000);
      await exit;
      clearTimeout(timer);
    },
  };
}

/** `DB_*` variables, as Bemi's image takes them. */
export function databaseVariables(url: string): Record<string, string> {
  const { hostname, port, pathname, username } = new URL(url);
  return {
    DB_HOST: hostname,
    DB_PORT: port,
    DB_NAME: pathname.slice(1),
    DB_USER: username,
    DB_PASSWORD: "a/secret@of: it",
  };
}

/** The samples of Prometheus' text format, by name with labels; fails on a line that is none. */
export function samples(text: string): Map<string, number> {
  const found = new Map<string, number>();
  for (const line of text.split("\n")) {
    if (line === "" || line.startsWith("#")) continue;
    const [, name, value] =
      /^([a-z][a-z0-9_]*(?:\{(?:[a-z_]+="[^"\\]*",?)*\})?) (-?[0-9.e+-]+|\+Inf|Nan)$/i.exec(line) ?? [];
    if (!name || !value) throw new Error(`No sample: ${line}`);
    found.set(name, value === "+Inf" ? Infinity : Number(value));
  }
  return found;
}
