import { context, SpanStatusCode } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  type ReadableSpan,
  SimpleSpanProcessor,
} from "@opentelemetry/sdk-trace-base";
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { onEachServer } from "./support/databases.ts";
import { BEMI, createSlot, install, poll, runWorker, SCHEMA, track } from "./support/installation.ts";
import { seen } from "./support/todos.ts";

beforeAll(() => {
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
});
afterAll(() => context.disable());

function tracing() {
  const exporter = new InMemorySpanExporter();
  const provider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] });
  const named = (name: string): ReadableSpan[] =>
    exporter.getFinishedSpans().filter((span) => span.name === name);
  return { tracer: provider.getTracer("test"), exporter, named };
}

onEachServer("OpenTelemetry", (open) => {
  test("each write and each peek is a span, which says how much and never what", async () => {
    await using database = await open();
    const { db, port, url } = database;
    await install(db);
    await createSlot(db);
    await port.execute("create table todos (id int primary key, task json)");
    await track(db, "todos", { capture: "wal" });
    await port.execute("insert into todos values (1, '\"private\"'), (2, '\"\\u0000private\"')");
    const { tracer, exporter, named } = tracing();
    expect(await poll({ source: url, tracer })).toMatchObject({ written: 1, setAside: 1 });
    const [written] = named("bemi.write");
    expect(written?.attributes).toMatchObject({
      "db.system.name": "postgresql",
      "bemi.written": 1,
      "bemi.set_aside": 1,
    });
    const [peek] = named("bemi.peek");
    expect(written?.parentSpanContext?.spanId).toBe(peek?.spanContext().spanId);
    expect(peek?.attributes["bemi.messages"]).toBeGreaterThanOrEqual(5);
    await db.begin(async (other) => {
      await other.unsafe(`select from ${BEMI}.checkpoints for update`);
      await port.execute("insert into todos values (3, '\"private\"')");
      expect(await poll({ source: url, tracer })).toMatchObject({ isBusy: true });
    });
    const refused = named("bemi.write").at(-1);
    expect(refused?.status).toEqual({ code: SpanStatusCode.ERROR });
    expect(refused?.attributes["error.type"]).toBe("55P03");
    expect(exporter.getFinishedSpans().every(({ events }) => events.length === 0)).toBe(true);
    const told = exporter.getFinishedSpans().map(({ name, attributes, status }) => ({
      name,
      attributes,
      status,
    }));
    expect(JSON.stringify(told)).not.toContain("private");
  });

  test("the command line traces where the process was given an SDK", async () => {
    await using database = await open();
    await install(database.db);
    await createSlot(database.db);
    await database.port.execute("create table todos (id int primary key, task text)");
    await track(database.db, "todos", { capture: "wal" });
    await database.port.execute("insert into todos values (1, 'private')");
    const run = (...node: string[]): string => {
      const { stdout, stderr, status } = spawnSync(
        process.execPath,
        [...node, "dist/src/cli/bin-poll.js", "--once", "--schema", SCHEMA, "--database-url", database.url],
        { cwd: fileURLToPath(new URL("../", import.meta.url)), encoding: "utf8" },
      );
      expect(status, stderr).toBe(0);
      return stdout;
    };
    const spans = run("--import", "./test/runtimes/tracing.mjs");
    expect(spans).toContain("@bemi/core bemi.peek");
    expect(spans).toContain("@bemi/core bemi.write 1");
    expect(spans).not.toContain("private");
    expect(run()).toBe("");
  });

  test("a reconnection is a span, from the fault to the worker's being back", async () => {
    await using database = await open();
    const { db, port, url } = database;
    await install(db);
    await createSlot(db);
    await port.execute("create table todos (id int primary key, task text)");
    await track(db, "todos", { capture: "wal" });
    const { tracer, named } = tracing();
    await using _worker = runWorker({ source: url, tracer });
    await port.execute("insert into todos values (1, 'a')");
    await vi.waitFor(async () => expect(await seen(port)).toHaveLength(1), { timeout: 20_000 });
    await vi.waitFor(async () => {
      await db`select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and application_name = 'bemi worker'`;
      expect(named("bemi.reconnect").length).toBeGreaterThan(0);
    }, { timeout: 20_000, interval: 1000 });
    const [reconnect] = named("bemi.reconnect");
    expect(reconnect?.attributes["error.type"]).toMatch(/^(57P01|CONNECTION_|ECONN)/);
    expect(reconnect?.attributes["bemi.attempts"]).toBeGreaterThan(0);
    await port.execute("insert into todos values (2, 'b')");
    await vi.waitFor(async () => expect(await seen(port)).toHaveLength(2), { timeout: 20_000 });
    expect(await port.query(`select from ${BEMI}.gaps`)).toEqual([]);
  });
});
