import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import process from "node:process";
// @ts-expect-error plain JavaScript, as it runs before anything is built
import { tool } from "../tools/install.mjs";

const find = tool as (name: string) => string;

/** A runtime that runs a file in a process. */
export interface ProcessRuntime {
  readonly name: string;
  /** Of the small file in `test/runtimes`. */
  readonly entry: "node" | "deno" | "bun";
  /** Executable and arguments before the file; `undefined` where it cannot be had. */
  readonly command: () => readonly [string, ...string[]] | undefined;
}

export const PROCESS_RUNTIMES: readonly ProcessRuntime[] = [
  { name: `Node ${process.versions.node.split(".")[0]}`, entry: "node", command: () => [process.execPath] },
  { name: "Node 24", entry: "node", command: node24 },
  {
    name: "Deno",
    entry: "deno",
    command: () => [find("deno"), "run", "--no-config", "--node-modules-dir=manual", "-A"],
  },
  { name: "Bun", entry: "bun", command: () => [find("bun")] },
];

/** npm has it for Linux on x64. */
function node24(): [string] | undefined {
  const executable = find("node");
  if (existsSync(executable)) return [executable];
  console.warn("The tests under Node 24 are skipped, as npm has none for this machine");
  return undefined;
}

interface Run {
  readonly command: readonly [string, ...string[]];
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd: string;
}

/** Runs to the end, which has to come by itself; gives what was printed. */
export function runToEnd({ command: [executable, ...before], args, env, cwd }: Run): string {
  const { status, stdout, stderr, error } = spawnSync(executable, [...before, ...args], {
    cwd,
    encoding: "utf8",
    env: { ...process.env, ...env },
    timeout: 150_000,
  });
  if (status === 0) return stdout;
  throw new Error(`${executable} ${args.join(" ")} ended with ${error ?? status}\n${stdout}${stderr}`);
}

/** A process that is stopped with its scope. */
export interface Running extends AsyncDisposable {
  /** The first match in what it printed, as soon as there is one. */
  printed(pattern: RegExp): Promise<RegExpExecArray>;
  /** Its exit code, when it has ended by itself. */
  ended(): Promise<number | null>;
  /** Its exit code, once it was told to end. */
  terminate(): Promise<number | null>;
}

export function start({ command: [executable, ...before], args, env, cwd }: Run): Running {
  const child = spawn(executable, [...before, ...args], { cwd, env: { ...process.env, ...env } });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk: Uint8Array) => {
      output += chunk.toString();
      child.emit("printed");
    });
  }
  const exit = once(child, "exit") as Promise<[number | null]>;
  return {
    printed: async (pattern) => {
      for (;;) {
        const match = pattern.exec(output);
        if (match) return match;
        await Promise.race([
          once(child, "printed"),
          exit.then(([code]) => {
            throw new Error(`${executable} ${args.join(" ")} ended with ${code}\n${output}`);
          }),
        ]);
      }
    },
    ended: async () => (await exit)[0],
    terminate: async () => {
      child.kill("SIGTERM");
      return (await exit)[0];
    },
    [Symbol.asyncDispose]: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill("SIGKILL");
      await exit;
    },
  };
}
