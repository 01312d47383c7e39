import postgres from "postgres";
import { afterAll, beforeAll, describe, expect, inject, test, vi } from "vitest";
import { connect } from "../src/database/connect.ts";
import type { WorkerEvent } from "../src/worker/mod.ts";
import { openStream } from "../src/worker/stream.ts";
import { BEMI, createSlot, install, OWN_NAME, runWorker, track } from "./support/installation.ts";
import { type Server, startServer } from "./support/servers.ts";

/** Seconds after which a walsender takes a silent client for dead. */
const TIMEOUT = 2;

describe.each(inject("servers").map(({ version }) => [version]))(
  "back-pressure on PostgreSQL %s",
  (version) => {
    let server: Server;
    beforeAll(async () => {
      server = await startServer(version, ["fsync=off", `wal_sender_timeout=${TIMEOUT}s`]);
    });
    afterAll(() => server?.remove());

    async function database(name: string): Promise<{ url: string; sql: postgres.Sql }> {
      const admin = postgres(server.url(), { max: 1, onnotice() {} });
      await admin.unsafe(`create database ${name}`);
      await admin.end();
      const url = server.url(name);
      const sql = postgres(url, { max: 4, onnotice() {} });
      await install(sql);
      await createSlot(sql);
      await sql.unsafe("create table todos (id int primary key, task text)");
      await track(sql, "todos", { capture: "wal" });
      return { url, sql };
    }

    /** Holds the log while `fn` runs, as a lock, a full disk or a slow network would: nothing can be written to it. */
    async function whileBlocked(sql: postgres.Sql, fn: () => Promise<void>): Promise<void> {
      await sql.begin(async (tx) => {
        await tx.unsafe(`lock table ${BEMI}.changes in access exclusive mode`);
        await fn();
      });
    }

    const insert = (sql: postgres.Sql, from: number, to: number, text: string): Promise<unknown> =>
      sql.unsafe(`do $$ begin for i in ${from / 1000}..${to / 1000 - 1} loop
      insert into todos select i * 1000 + n, ${text} from generate_series(1, 1000) n; commit; end loop; end $$`);

    interface Walsender {
      readonly pid: number;
      readonly waits: string;
      readonly silent: number;
    }

    const walsender = async (sql: postgres.Sql): Promise<Walsender | undefined> =>
      (await sql.unsafe<Walsender[]>(`select r.pid, pg_current_wal_lsn() - r.sent_lsn as waits,
        extract(epoch from clock_timestamp() - r.reply_time)::float8 as silent
      from pg_stat_replication r join pg_replication_slots s on s.active_pid = r.pid where s.database = current_database()`))[
        0
      ];

    /** Each row's creation, once, in order. */
    async function expectAll(sql: postgres.Sql, count: number): Promise<void> {
      await vi.waitFor(async () => {
        const [row] = await sql.unsafe(`select count(*)::int as n from ${BEMI}.changes`);
        expect(row?.n).toBeGreaterThanOrEqual(count);
      }, { timeout: 120_000, interval: 200 });
      const rows = await connect(sql).query<{ key: number }>(
        `select primary_key::int as key from ${BEMI}.changes where operation = 'CREATE'
      order by source_id, commit_lsn, transaction_index`,
      );
      expect(rows.length).toBe(count);
      expect(rows.every(({ key }, i) => key === i + 1)).toBe(true);
    }

    test("a destination that takes nothing for several time-outs is no death: one stream lives through it", async () => {
      const { url, sql } = await database("blocked");
      const events: WorkerEvent[] = [];
      await using worker = runWorker({
        source: url,
        mode: "stream",
        heartbeatInterval: 300,
        log: (event) => events.push(event),
      });
      await vi.waitFor(async () => expect(await walsender(sql)).toBeDefined(), { timeout: 30_000 });
      const before = await walsender(sql);
      const isBack = (event: WorkerEvent): boolean => event.kind === "heartbeat";
      await vi.waitFor(() => expect(events.some(isBack)).toBe(true), { timeout: 30_000 });
      let startedAt = 0;
      await whileBlocked(sql, async () => {
        startedAt = performance.now();
        events.length = 0;
        // More than the worker's queue and the network's buffers take.
        await insert(sql, 0, 60_000, "repeat('x', 1000)");
        await vi.waitFor(async () => {
          expect(performance.now() - startedAt).toBeGreaterThan(3 * TIMEOUT * 1000);
          const during = await walsender(sql);
          expect(during?.pid).toBe(before?.pid);
          // The server has more to send than is taken from it, and hears of the worker all the same.
          expect(Number(during?.waits)).toBeGreaterThan(1_000_000);
          expect(during?.silent).toBeLessThan(TIMEOUT);
        }, { timeout: 60_000, interval: 100 });
        expect(events.filter(isBack)).toEqual([]);
      });
      await expectAll(sql, 60_000);
      expect((await walsender(sql))?.pid).toBe(before?.pid);
      expect(events.filter(({ kind }) => kind === "retry")).toEqual([]);
      // The heartbeat that was on its way meanwhile tells how far behind the log was.
      await vi.waitFor(() => expect(events.some(isBack)).toBe(true), { timeout: 30_000 });
      const first = events.find((event) => event.kind === "heartbeat");
      expect(first?.kind === "heartbeat" && first.roundTrip).toBeGreaterThan(2 * TIMEOUT * 1000);
      await worker.stop();
      await sql.end();
    });

    test(
      "under a load that never pauses, what has come is committed all the same, again and again",
      async () => {
        const { url, sql } = await database("steady");
        await using worker = runWorker({ source: url, mode: "stream" });
        await vi.waitFor(async () => expect(await walsender(sql)).toBeDefined(), { timeout: 30_000 });
        // Slower than what is written, so that there is always more than was taken.
        const slow = (seconds: number): string =>
          `create or replace function slow() returns trigger language plpgsql as $$ begin
          perform pg_sleep(${seconds}); return new; end $$;`;
        await sql.unsafe(`${slow(0.02)}
        create trigger slow before insert on ${BEMI}.changes for each row execute function slow()`);
        let isLoaded = true;
        const load = (async (): Promise<number> => {
          const own = postgres(url, { max: 1 });
          let n = 0;
          while (isLoaded) await own`insert into todos values (${++n}, repeat('x', 100000))`;
          await own.end();
          return n;
        })();
        try {
          await vi.waitFor(async () => {
            const [row] = await sql.unsafe(
              `select count(distinct xmin::text)::int as commits,
                ((select count(*) from todos) - count(*))::int as behind from ${BEMI}.changes`,
            );
            expect(row?.commits).toBeGreaterThanOrEqual(4);
            expect(row?.behind).toBeGreaterThan(0);
          }, { timeout: 60_000, interval: 200 });
        } finally {
          isLoaded = false;
        }
        const count = await load;
        await sql.unsafe(slow(0));
        await expectAll(sql, count);
        await worker.stop();
        await sql.end();
      },
      240_000,
    );

    test(
      "auto reads in bulk while it is far behind, streams when it is near, and changes over losing and repeating nothing",
      async () => {
        const { url, sql } = await database("far");
        // A server that ends nothing by itself: what the worker leaves, it has to close.
        await sql.unsafe("alter database far set wal_sender_timeout = 0");
        const events: WorkerEvent[] = [];
        await insert(sql, 0, 120_000, "'todo'");
        await using worker = runWorker({
          source: url,
          mode: "auto",
          bulkAbove: 1_000_000,
          log: (event) => events.push(event),
        });
        const reading = (): unknown[] =>
          events.flatMap((event) => event.kind === "reading" ? [`${event.mode}: ${event.reason}`] : []);
        const bulk = "bulk: it is far behind";
        const stream = "stream: it is near the end of the Write-Ahead Log";
        await vi.waitFor(() => expect(reading()).toEqual([bulk, stream]), { timeout: 120_000 });
        await expectAll(sql, 120_000);
        await whileBlocked(sql, async () => {
          const startedAt = performance.now();
          // So much that the connection is clogged when the worker leaves it.
          await insert(sql, 120_000, 200_000, "repeat('x', 1000)");
          // The stream is looked after once a second.
          await vi.waitFor(() => expect(performance.now() - startedAt).toBeGreaterThan(1500), {
            timeout: 10_000,
          });
        });
        await vi.waitFor(() => expect(reading().slice(0, 3)).toEqual([bulk, stream, bulk]), {
          timeout: 120_000,
        });
        await vi.waitFor(() => expect(reading().at(-1)).toBe(stream), { timeout: 120_000 });
        await insert(sql, 200_000, 201_000, "'todo'");
        await expectAll(sql, 201_000);
        expect(events.filter(({ kind }) => kind === "retry" || kind === "gap")).toEqual([]);
        await worker.stop();
        await sql.end();
      },
      240_000,
    );

    test("a stream that is left while the server has more to send lets go of the slot", async () => {
      const { url, sql } = await database("clogged");
      // A server that ends nothing by itself: what is left, the worker has to close.
      await sql.unsafe("alter database clogged set wal_sender_timeout = 0");
      const [row] = await sql.unsafe<{ slot: string }[]>(`select ${BEMI}.slot_name() as slot`);
      await insert(sql, 0, 40_000, "repeat('x', 1000)");
      const { signal } = new AbortController();
      const stream = await openStream(url, {
        slot: row?.slot ?? "",
        publication: OWN_NAME,
        statusInterval: 1000,
        signal,
      });
      const waits = async (): Promise<string | undefined> =>
        (await sql.unsafe<{ wait_event: string }[]>(
          `select wait_event from pg_stat_activity a join pg_replication_slots s on s.active_pid = a.pid where s.slot_name = $1`,
          [row?.slot ?? ""],
        ))[0]?.wait_event;
      // Nothing is taken of it.
      await vi.waitFor(async () => expect(await waits()).toMatch(/WalSenderWriteData|ClientWrite/), {
        timeout: 30_000,
      });
      await stream[Symbol.asyncDispose]();
      await vi.waitFor(async () => expect(await waits()).toBeUndefined(), { timeout: 30_000 });
      await sql.end();
    });
  },
);
