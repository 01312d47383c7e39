import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { get } from "node:http";
import { createServer } from "node:net";
import { fileURLToPath } from "node:url";
import postgres from "postgres";
import { expect, test, vi } from "vitest";
import { health, readiness } from "../src/cli/listen/health.ts";
import { listen } from "../src/cli/listen/listen.ts";
import { METRICS } from "../src/cli/listen/metrics.ts";
import { workerState } from "../src/cli/listen/worker-state.ts";
import { timeToLoss } from "../src/install/mod.ts";
import { databaseVariables, type ListeningWorker, listeningWorker, samples } from "./support/cli-worker.ts";
import { onEachServer, type TestDatabase } from "./support/databases.ts";
import { createSlot, install, track } from "./support/installation.ts";
import { startServer } from "./support/servers.ts";

const PATIENCE = { timeout: 30_000, interval: 100 };

async function todos({ db, port }: Pick<TestDatabase, "db" | "port">): Promise<void> {
  await install(db);
  await createSlot(db);
  await port.execute(
    "create table todos (id int generated always as identity primary key, task text, raw json)",
  );
  await track(db, "todos", { capture: "wal" });
}

async function metricsOf(worker: ListeningWorker): Promise<Map<string, number>> {
  const { status, body } = await worker.get("/metrics");
  expect(status).toBe(200);
  return samples(body);
}

const ready = (worker: ListeningWorker, mode: string): Promise<void> =>
  vi.waitFor(async () => {
    const { status, body } = await worker.get("/readyz");
    expect([status, JSON.parse(body)], worker.log()).toEqual([200, { status: "ok", mode }]);
  }, PATIENCE);

onEachServer("a worker that listens", (open, version) => {
  test("connects by Bemi's DB_* variables, and tells Prometheus what it did, and no row's value", async () => {
    await using database = await open();
    await todos(database);
    await using worker = await listeningWorker(databaseVariables(database.url));
    await ready(worker, "stream");
    expect(await worker.get("/healthz")).toEqual({ status: 200, body: '{"status":"ok","mode":"stream"}\n' });
    for (const raw of ['"private"', '"\\u0000private"', null]) {
      await database.db`insert into todos (task, raw) values ('private', ${raw}::text::json)`;
    }
    const at = `database="${new URL(database.url).pathname.slice(1)}"`;
    const found = await vi.waitFor(async () => {
      const found = await metricsOf(worker);
      expect(found.get("bemi_changes_written_total")).toBe(2);
      expect(found.get("bemi_changes_set_aside_total")).toBe(1);
      expect(found.has(`bemi_heartbeat_timestamp_seconds{${at}}`)).toBe(true);
      return found;
    }, PATIENCE);
    expect(found.get("bemi_transactions_written_total")).toBe(3);
    expect(found.get("bemi_gaps_total")).toBe(0);
    expect(found.get(`bemi_worker_mode{${at},mode="stream"}`)).toBe(1);
    expect(found.get(`bemi_worker_mode{${at},mode="standby"}`)).toBe(0);
    expect(Date.now() / 1000 - (found.get(`bemi_last_change_timestamp_seconds{${at}}`) ?? 0)).toBeLessThan(
      60,
    );
    expect(found.get(`bemi_commit_to_log_seconds{${at}}`)).toBeGreaterThanOrEqual(0);
    const [slot] = await database
      .db`select slot_name from pg_replication_slots where database = current_database()`;
    const ofSlot = `${at},slot="${slot?.slot_name}"`;
    expect(found.get(`bemi_slot_wal_status{${ofSlot},status="reserved"}`)).toBe(1);
    expect(found.get(`bemi_slot_retained_bytes{${ofSlot}}`)).toBeGreaterThan(0);
    expect(found.get(`bemi_slot_confirmed_lag_bytes{${ofSlot}}`)).toBeGreaterThanOrEqual(0);
    expect(found.get(`bemi_slot_spilled_bytes_total{${ofSlot}}`)).toBe(0);
    expect(found.get(`bemi_slot_spilled_transactions_total{${ofSlot}}`)).toBe(0);
    expect(found.get(`bemi_heartbeat_seconds{${at}}`)).toBeGreaterThanOrEqual(0);
    // Nothing limits what the slot keeps, and so nothing can be lost.
    expect(found.has(`bemi_slot_safe_wal_bytes{${ofSlot}}`)).toBe(false);
    const { body } = await worker.get("/metrics");
    for (const name of METRICS) expect(body).toContain(`# TYPE ${name} `);
    expect(body).toContain("process_resident_memory_bytes");
    for (const [, name, type] of body.matchAll(/^# TYPE (\w+) (\w+)$/gm)) {
      expect([name, type === "counter"]).toEqual([name, name?.endsWith("_total")]);
    }
    expect(body + worker.log()).not.toContain("private");
    expect(body + worker.log()).not.toContain("a/secret@of");

    expect(await worker.get("/nowhere")).toMatchObject({ status: 404 });
    worker.child.kill("SIGTERM");
    expect(await once(worker.child, "exit")).toEqual([0, null]);
  });

  test("is not ready while it is too far behind", async () => {
    await using database = await open();
    await todos(database);
    await database.port.execute("create table noise (v text)");
    await using worker = await listeningWorker({ DATABASE_URL: database.url }, ["--ready-lag", "0"]);
    await vi.waitFor(async () => {
      await database.port.execute("insert into noise select repeat('x', 1000) from generate_series(1, 20)");
      const { status, body } = await worker.get("/readyz");
      expect([status, body]).toEqual([503, expect.stringMatching(/\d+ bytes of WAL behind/)]);
    }, PATIENCE);
    expect(await worker.get("/healthz")).toMatchObject({ status: 200 });
  });

  test("that stands by is ready, says so, and leaves the slot's figures to the other", async () => {
    await using database = await open();
    await todos(database);
    await using first = await listeningWorker({ DATABASE_URL: database.url });
    await ready(first, "stream");
    await using second = await listeningWorker({ DATABASE_URL: database.url });
    await ready(second, "standby");
    const names = [...(await metricsOf(second)).keys()];
    expect(names.filter((name) => name.startsWith("bemi_slot_"))).toEqual([]);
    first.child.kill("SIGKILL");
    await ready(second, "stream");
    expect([...(await metricsOf(second)).keys()].some((name) => name.startsWith("bemi_slot_"))).toBe(true);
  });

  test("outlives the server's absence, not ready, with the error's code", async () => {
    const server = await startServer(version, [
      "fsync=off",
      "max_slot_wal_keep_size=64MB",
      "logical_decoding_work_mem=64kB",
    ]);
    try {
      const db = postgres(server.url(), { max: 1, onnotice() {} });
      await todos({ db, port: { execute: (text: string) => db.unsafe(text) } as never });
      await using worker = await listeningWorker({ DATABASE_URL: server.url() });
      await ready(worker, "stream");
      await vi.waitFor(async () => {
        const safe = [...await metricsOf(worker)].find(([name]) =>
          name.startsWith("bemi_slot_safe_wal_bytes")
        );
        expect(safe?.[1]).toBeGreaterThan(0);
        const loss = [...await metricsOf(worker)].find(([name]) => name.startsWith("bemi_slot_time_to_loss"));
        expect(loss?.[1]).toBeGreaterThan(0);
      }, PATIENCE);
      // Beyond what the server decodes in memory.
      await db.unsafe("insert into todos (task) select 'spilled' from generate_series(1, 5000)");
      await db.end();
      await vi.waitFor(async () => {
        const found = [...await metricsOf(worker)].filter(([name]) => name.startsWith("bemi_slot_spilled"));
        expect(found.map(([, value]) => value > 0)).toEqual([true, true]);
      }, PATIENCE);
      await server.stop("immediate");
      await vi.waitFor(async () => {
        const { status, body } = await worker.get("/readyz");
        expect([status, body]).toEqual([503, expect.stringContaining("not connected")]);
      }, PATIENCE);
      expect(await worker.get("/healthz")).toMatchObject({ status: 200 });
      const found = await metricsOf(worker);
      expect(found.get("bemi_worker_reconnects_total")).toBeGreaterThan(0);
      const codes = [...found.keys()].filter((name) => name.startsWith("bemi_worker_last_error"));
      expect(codes).toEqual([
        expect.stringMatching(/code="(ECONNREFUSED|ECONNRESET|CONNECTION_\w+|57P0\d)"/),
      ]);
      await server.start();
      await ready(worker, "stream");
    } finally {
      await server.remove();
    }
  });
});

test("a request for any path is answered", async () => {
  await using listener = await listen({
    host: "127.0.0.1",
    port: 0,
    readyLag: 0,
    state: () => workerState("bulk").current,
    turnedAt: () => Date.now(),
  });
  const ask = (path: string): Promise<number | undefined> =>
    new Promise((done, fail) => {
      get({ port: new URL(listener.url).port, path }, (response) => {
        response.resume();
        done(response.statusCode);
      }).once("error", fail);
    });
  expect(await ask("//")).toBe(404);
  expect(await ask("http://[")).toBe(404);
  expect(await ask("/healthz?now")).toBe(200);
});

test("an address that cannot be used is said, with exit code 2", async () => {
  const taken = createServer().listen(0, "127.0.0.1");
  await once(taken, "listening");
  const { port } = taken.address() as { port: number };
  const run = (listen: string) =>
    spawnSync(
      process.execPath,
      ["dist/src/cli/bin-poll.js", "--database-url", "postgres://127.0.0.1:1/x", "--listen", listen],
      { cwd: fileURLToPath(new URL("../", import.meta.url)), encoding: "utf8" },
    );
  for (
    const [listen, message] of [[`${port}`, "EADDRINUSE"], ["70000", "port"], ["a b:1", "port"]] as const
  ) {
    const { status, stderr, stdout } = run(listen);
    expect([status, stderr, stdout]).toEqual([2, expect.stringContaining(message), ""]);
  }
  taken.close();
});

test("a loop that does not turn is not healthy, and a worker that knows too little is not ready", () => {
  expect(health(Date.now()).isWell).toBe(true);
  expect(health(Date.now() - 700_000)).toEqual({
    isWell: false,
    reason: expect.stringContaining("not turned"),
  });
  const state = workerState("bulk");
  expect(readiness(state.current, Infinity).isWell).toBe(false);
  state.observe({ kind: "started", slot: "bemi", database: "app" });
  expect(readiness(state.current, Infinity).isWell).toBe(false);
  const slot = {
    kind: "slot",
    confirmedLag: 10n,
    retained: 20n,
    walStatus: "reserved",
    safe: 5n,
    spilledBytes: 0n,
    spilledTransactions: 0n,
  } as const;
  state.observe({ ...slot, flushed: "1/FFFFFFF0" });
  expect(readiness(state.current, 10).isWell).toBe(true);
  expect(readiness(state.current, 9).isWell).toBe(false);
  state.observe({ kind: "standby", slot: "bemi" });
  expect(readiness(state.current, 0).isWell).toBe(true);
  expect(state.current).toMatchObject({ mode: "standby", slot: undefined });
  state.observe({ ...slot, flushed: "2/0" });
  expect(state.current).toMatchObject({ mode: "bulk", slot: { name: "bemi", safe: 5 } });
  state.observe({ kind: "retry", code: "57P01", delay: 1 });
  expect(readiness(state.current, Infinity).isWell).toBe(false);
  expect(state.current.slot).toBeUndefined();
});

test("the time to loss is what may still be written, at the rate at which it is", () => {
  expect(timeToLoss(1000, 10)).toBe(100);
  expect(timeToLoss(1000, 0)).toBe(Infinity);
  expect(timeToLoss(0, 10)).toBe(0);
  expect([timeToLoss(undefined, 10), timeToLoss(1000, undefined)]).toEqual([undefined, undefined]);
});
