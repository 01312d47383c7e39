import process from "node:process";
import { main } from "./main.ts";

/** Runs the command line of this process. */
export async function runProcess(prefix: readonly string[]): Promise<void> {
  // A reader that stops early (`bemi changes | head`) is no failure.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error;
    process.exit(0);
  });
  process.once("SIGINT", () => process.exit(130));
  process.exitCode = await main([...prefix, ...process.argv.slice(2)], {
    env: process.env,
    out: (text) => void process.stdout.write(text),
    err: (text) => void process.stderr.write(text),
    columns: process.stdout.isTTY ? process.stdout.columns : undefined,
    isColoured: process.stdout.isTTY && process.stdout.hasColors() && !process.env.NO_COLOR,
    progress: process.stderr.isTTY
      ? (line) => void process.stderr.write(`\r\u001b[2K${line.slice(0, process.stderr.columns - 1)}`)
      : undefined,
    onTerminate: (stop) => void process.once("SIGTERM", stop),
  });
}
