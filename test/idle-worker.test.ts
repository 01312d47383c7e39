import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { expect, test, vi } from "vitest";
import type { Database } from "../src/database/port.ts";
import { heartbeat } from "../src/worker/heartbeat.ts";
import { onEachServer } from "./support/databases.ts";
import { createSlot, install, SCHEMA, track } from "./support/installation.ts";

const bin = fileURLToPath(new URL("../dist/src/cli/bin-poll.js", import.meta.url));

/** Over which the CPU's time is counted. */
const WINDOW = 10_000;

// Told by the process itself, every so often: which share of a core it used since the last time.
const TELL = "data:text/javascript," + encodeURIComponent(`
  let [usage, at] = [process.cpuUsage(), performance.now()];
  setInterval(() => {
    const { user, system } = process.cpuUsage(usage);
    process.stderr.write("share " + (user + system) / 1000 / (performance.now() - at) + "\\n");
    [usage, at] = [process.cpuUsage(), performance.now()];
  }, ${WINDOW}).unref();`);

onEachServer("an idle worker", (open) => {
  test.each(["stream", "poll"])(
    "costs less than a hundredth of a core, once it has settled (%s)",
    async (mode) => {
      await using database = await open();
      await install(database.db);
      await createSlot(database.db);
      await database.port.execute("create table todos (id int primary key, task text)");
      await track(database.db, "todos", { capture: "wal" });
      const args = [
        "--import",
        TELL,
        bin,
        "--schema",
        SCHEMA,
        "--database-url",
        database.url,
        "--mode",
        mode,
      ];
      const worker = spawn(process.execPath, args, { stdio: ["ignore", "ignore", "pipe"] });
      const exit = once(worker, "exit");
      let said = "";
      worker.stderr.on("data", (chunk: Uint8Array) => said += chunk.toString());
      try {
        await vi.waitFor(() => {
          // Starting up, and what is compiled and collected afterwards, is no idling.
          const shares = [...said.matchAll(/^share (.+)$/gm)].map(([, share]) => Number(share)).slice(1);
          expect(Math.min(...shares), said).toBeLessThan(0.01);
        }, { timeout: 8 * WINDOW, interval: 500 });
        worker.kill("SIGTERM");
        expect(await exit).toEqual([0, null]);
      } finally {
        worker.kill("SIGKILL");
      }
    },
    10 * WINDOW,
  );
});

test("a heartbeat that failed is not waited for: the next one is sent", async () => {
  let asked = 0;
  const db = {
    query: () => {
      asked++;
      return Promise.reject(Object.assign(new Error("canceled"), { code: "57014" }));
    },
  } as unknown as Database;
  const { beat } = heartbeat({ db, interval: 1, log: () => {} });
  for (const times of [1, 2]) {
    await expect(beat()).rejects.toMatchObject({ code: "57014" });
    expect(asked).toBe(times);
    await new Promise((done) => setTimeout(done, 5));
  }
});
