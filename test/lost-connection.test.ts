import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath, pathToFileURL } from "node:url";
import { expect, test, vi } from "vitest";
import { openConnection } from "../src/worker/connection.ts";
import { onEachServer } from "./support/databases.ts";
import { BEMI, createSlot, install, SCHEMA, track } from "./support/installation.ts";

const bin = fileURLToPath(new URL("../dist/src/cli/bin-poll.js", import.meta.url));

/** Of the driver, which then never learns that its first three connections are gone, nor answers what was under way. */
const DEAFENS = `
import { Socket } from "node:net";
const on = Socket.prototype.on;
let left = 2 * 3;
Socket.prototype.on = function (event, listener) {
  const isDriver = event === "error" && listener.name === "error" || event === "close" && listener.name === "closed";
  if (!isDriver || left === 0) return on.call(this, event, listener);
  if (--left === 0) process.stderr.write("deafened\\n");
  return on.call(this, event, () => {});
};
`;

onEachServer("a connection that is gone", (open) => {
  test("answers everything that is asked of it, between the error and the end too, and is not made again", async () => {
    await using database = await open();
    let socket: Socket | undefined;
    let sockets = 0;
    const sql = await openConnection(database.url, {}, {
      opened: (opened) => {
        socket = opened;
        sockets++;
      },
    });
    await sql.unsafe("select 1");
    const asked = new Promise((done, fail) => {
      socket?.prependOnceListener(
        "error",
        () => void (async () => await sql.unsafe("select 2"))().then(done, fail),
      );
    });
    const under = sql.unsafe("select pg_sleep(60)") as Promise<unknown>;
    under.catch(() => {});
    socket?.destroy(Object.assign(new Error("reset"), { code: "ECONNRESET" }));
    await expect(asked).rejects.toMatchObject({ code: "CONNECTION_CLOSED" });
    await expect(under).rejects.toMatchObject({ code: "ECONNRESET" });
    await expect((async () => await sql.unsafe("select 3"))()).rejects.toMatchObject({
      code: "CONNECTION_CLOSED",
    });
    await expect((async () => await sql.begin((tx) => tx.unsafe("select 4")))()).rejects.toMatchObject({
      code: "CONNECTION_CLOSED",
    });
    await sql.end({ timeout: 5 });
    expect(sockets).toBe(1);
  });

  test("keeps no worker that is asked to end, also where the driver never says that it is gone", async () => {
    await using database = await open();
    const { db, port, url } = database;
    const outside = database.connect({ max: 1 });
    await install(db);
    await createSlot(db);
    await port.execute("create table todos (id int primary key, task text)");
    await track(db, "todos", { capture: "wal" });
    const folder = mkdtempSync(join(tmpdir(), "bemi-deaf-"));
    const preloaded = join(folder, "deafens.mjs");
    writeFileSync(preloaded, DEAFENS);
    const worker = spawn(
      process.execPath,
      [
        "--import",
        pathToFileURL(preloaded).href,
        bin,
        "--mode",
        "stream",
        "--schema",
        SCHEMA,
        "--database-url",
        url,
      ],
      { stdio: ["ignore", "ignore", "pipe"], env: { PATH: process.env.PATH ?? "" } },
    );
    let log = "";
    worker.stderr.on("data", (chunk: Uint8Array) => void (log += chunk.toString()));
    const exit = once(worker, "exit");
    const streams = (): number => log.split('"mode":"stream"').length - 1;
    try {
      await vi.waitFor(() => expect(streams(), log).toBe(1), { timeout: 30_000 });
      expect(log).toContain("deafened");
      const workers =
        "pg_stat_activity where application_name = 'bemi worker' and datname = current_database()";
      await port.transaction(async (tx) => {
        await tx.execute(`lock table ${BEMI}.checkpoints`);
        await outside`insert into todos values (1, 'a')`;
        await vi.waitFor(
          async () =>
            expect(await tx.query(`select from ${workers} and wait_event_type = 'Lock'`)).toHaveLength(1),
          { timeout: 10_000 },
        );
        await tx.query(`select pg_terminate_backend(pid) from ${workers}`);
      });
      expect(log).not.toContain("Trying again");
      // Given up, and begun again.
      await vi.waitFor(() => expect(streams(), log).toBe(2), { timeout: 60_000 });
      worker.kill("SIGTERM");
      const left = setTimeout(() => worker.kill("SIGKILL"), 8000);
      expect(await exit, log).toEqual([0, null]);
      clearTimeout(left);
    } finally {
      worker.kill("SIGKILL");
      rmSync(folder, { recursive: true });
    }
  }, 120_000);
});
