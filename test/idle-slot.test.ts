import { Buffer } from "node:buffer";
import { expect, test, vi } from "vitest";
import { decode } from "../src/worker/decode.ts";
import type { WorkerEvent } from "../src/worker/mod.ts";
import { onEachServer, type TestDatabase } from "./support/databases.ts";
import { BEMI, createSlot, install, OWN_NAME, runWorker, track } from "./support/installation.ts";
import { seen, TODOS } from "./support/todos.ts";

async function todos({ db, port }: TestDatabase): Promise<void> {
  await install(db);
  await createSlot(db);
  await port.execute(TODOS);
  await track(db, "todos", { capture: "wal" });
}

const position = async ({ port }: TestDatabase): Promise<string> =>
  (await port.query<{ lsn: string }>("select pg_current_wal_lsn()::text as lsn"))[0]?.lsn ?? "";

const isConfirmed = async ({ port }: TestDatabase, lsn: string): Promise<boolean> =>
  (await port.query(
    `select from pg_replication_slots where slot_name = ${BEMI}.slot_name() and confirmed_flush_lsn >= $1::text::pg_lsn`,
    [lsn],
  )).length > 0;

onEachServer("a slot whose tables are idle", (open) => {
  test.each(["stream", "poll"] as const)(
    "advances while only another database is written (%s)",
    async (mode) => {
      await using database = await open();
      await using other = await open();
      await todos(database);
      await other.port.execute("create table noise (v text)");
      await using _worker = runWorker({
        source: database.url,
        mode,
        heartbeatInterval: 500,
        pollInterval: 200,
      });
      for (let i = 0; i < 3; i++) {
        await other.port.execute("insert into noise select repeat('x', 1000) from generate_series(1, 2000)");
        const written = await position(other);
        // Nothing else is written by the test from here on.
        await vi.waitFor(async () => expect(await isConfirmed(database, written)).toBe(true), {
          timeout: 30_000,
          interval: 200,
        });
      }
      expect(await seen(database.port)).toEqual([]);
      await database.port.execute("insert into todos (task) values ('after all that')");
      await vi.waitFor(async () => expect(await seen(database.port)).toHaveLength(1), { timeout: 20_000 });
    },
  );

  test.each(["stream", "poll"] as const)(
    "advances by heartbeats alone, which are measured (%s)",
    async (mode) => {
      await using database = await open();
      await todos(database);
      const events: WorkerEvent[] = [];
      await using _worker = runWorker({
        source: database.url,
        mode,
        heartbeatInterval: 500,
        pollInterval: 100,
        log: (event) => events.push(event),
      });
      const trips = (): number[] =>
        events.flatMap((event) => event.kind === "heartbeat" ? [event.roundTrip] : []);
      await vi.waitFor(() => expect(trips().length).toBeGreaterThan(1), { timeout: 30_000 });
      const start = await position(database);
      await vi.waitFor(async () => expect(await isConfirmed(database, start)).toBe(true), {
        timeout: 30_000,
      });
      for (const trip of trips()) expect(trip).toBeGreaterThanOrEqual(0);
      const [checkpoint] = await database.port.query<{ ms: number; is_recent: boolean }>(
        `select heartbeat_ms as ms, heartbeat_at > now() - interval '1 minute' as is_recent from ${BEMI}.checkpoints`,
      );
      expect(checkpoint?.is_recent).toBe(true);
      // Another may have come back since.
      expect(trips()).toContain(checkpoint?.ms);
      expect(await seen(database.port)).toEqual([]);
    },
  );

  test("heartbeats are transactional, so that they come in their place; none without an interval", async () => {
    await using database = await open();
    await todos(database);
    const { port } = database;
    await port.query(
      "select pg_create_logical_replication_slot('bemi_test_' || oid, 'pgoutput') from pg_database where datname = current_database()",
    );
    const messages = async (): Promise<{ prefix: string; isTransactional: boolean }[]> => {
      const rows = await port.query<{ data: string }>(
        `select encode(data, 'hex') as data from pg_replication_slots s,
          pg_logical_slot_get_binary_changes(s.slot_name, null, null, 'proto_version', '1', 'publication_names', $1::text, 'messages', 'true')
        where s.slot_name like 'bemi_test_%' and s.database = current_database()`,
        [OWN_NAME],
      );
      return rows.flatMap(({ data }) => {
        const message = decode(Buffer.from(data, "hex"));
        return message.kind === "message"
          ? [{ prefix: message.prefix, isTransactional: message.isTransactional }]
          : [];
      });
    };
    await runWorker({ source: database.url, once: true, heartbeatInterval: 0 }).finished;
    expect(await messages()).toEqual([]);
    await runWorker({ source: database.url, once: true }).finished;
    expect(await messages()).toEqual([{ prefix: "_bemi_heartbeat", isTransactional: true }]);
    await port.query(
      "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name like 'bemi_test_%' and database = current_database()",
    );
  });
});
