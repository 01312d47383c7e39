import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import postgres from "postgres";
import { describe, expect, inject, test, vi } from "vitest";
import { connect } from "../src/database/connect.ts";
import type { Database } from "../src/database/port.ts";
import { doctor } from "../src/install/mod.ts";
import { openConnection } from "../src/worker/connection.ts";
import { parseLsn } from "../src/worker/decode.ts";
import { advance, openSource } from "../src/worker/source.ts";
import type { WorkerEvent } from "../src/worker/mod.ts";
import { openProxy } from "./chaos/proxy.ts";
import { onEachServer } from "./support/databases.ts";
import { BEMI, createSlot, install, OWN_NAME, runWorker, SCHEMA, track } from "./support/installation.ts";
import { type Server, startServer } from "./support/servers.ts";
import { seen } from "./support/todos.ts";

const bin = fileURLToPath(new URL("../dist/src/cli/bin-poll.js", import.meta.url));

function cli(url: string, ...args: string[]): { status: number | null; stderr: string } {
  return spawnSync(
    process.execPath,
    [bin, "--once", "--database-url", url, "--schema", SCHEMA, ...args],
    { encoding: "utf8" },
  );
}

async function todos(sql: postgres.Sql, options: { failover?: boolean } = {}): Promise<void> {
  await install(sql);
  await createSlot(sql, options);
  await sql.unsafe("create table todos (id int primary key, task text)");
  await track(sql, "todos", { capture: "wal" });
}

const tasks = async (sql: postgres.Sql): Promise<unknown[]> =>
  (await seen(connect(sql))).map(({ operation, after, key }) => `${operation} ${after.task ?? key}`);

interface Gap {
  readonly from: string;
  readonly to: string;
  readonly is_same: boolean;
  readonly reason: string;
  readonly has_time: boolean;
}

const gaps = (sql: postgres.Sql): Promise<Gap[]> =>
  sql.unsafe<Gap[]>(
    `select from_lsn::text as from, to_lsn::text as to, source_id = to_source_id as is_same, reason,
      from_time is not null as has_time
    from ${BEMI}.gaps order by id`,
  );

const catchUp = (
  url: string,
  options: { recreateSlot?: boolean; destination?: string } = {},
): Promise<void> => runWorker({ source: url, once: true, ...options }).finished;

const lsn = async (sql: postgres.Sql): Promise<string> =>
  (await sql<{ lsn: string }[]>`select pg_current_wal_lsn()::text as lsn`)[0]?.lsn ?? "";

onEachServer("a slot", (open) => {
  test("is let go of also where that takes longer than the role's statements may", async () => {
    await using database = await open();
    const { db, port, url } = database;
    await install(db);
    await createSlot(db);
    const sql = await openConnection(url);
    try {
      const source = await openSource(sql, SCHEMA, undefined);
      const timeouts: unknown[] = [];
      const slow: Database = {
        ...source.db,
        query: async (text, parameters) => {
          if (!text.includes("pg_replication_slot_advance")) return await source.db.query(text, parameters);
          await source.db.query("set statement_timeout = '50ms'");
          return await source.db.query("select pg_sleep(60)");
        },
        transaction: (fn) =>
          source.db.transaction(async (tx) => {
            const result = await fn(tx);
            timeouts.push(...await tx.query("show statement_timeout"));
            return result;
          }),
      };
      const to = parseLsn(await lsn(db));
      await advance({ ...source, db: slow }, to);
      const [slot] = await port.query<{ at: string }>(
        `select confirmed_flush_lsn::text as at from pg_replication_slots where slot_name = ${BEMI}.slot_name()`,
      );
      expect(parseLsn(slot?.at ?? "0/0")).toBeGreaterThanOrEqual(to);
      expect(timeouts).toEqual([{ statement_timeout: "0" }]);
    } finally {
      await sql.end({ timeout: 1 });
    }
  });
});

onEachServer("a slot that is gone", (open) => {
  test("ends the worker with 5 and the remedy; made anew by choice, the gap is a row with its bounds", async () => {
    await using database = await open();
    const { db: sql, url } = database;
    await todos(sql);
    await sql`insert into todos values (1, 'read')`;
    await catchUp(url);
    const [checkpoint] = await sql.unsafe(`select end_lsn::text from ${BEMI}.checkpoints`);
    await sql.unsafe(`select pg_drop_replication_slot(${BEMI}.slot_name())`);
    await sql`insert into todos values (2, 'lost')`;
    const before = await lsn(sql);
    expect(cli(url)).toMatchObject({
      status: 5,
      stderr: expect.stringMatching(/is gone.*\n.*bemi worker --recreate-slot/),
    });
    expect(cli(url, "--mode", "stream")).toMatchObject({ status: 5 });
    expect((await doctor(sql, { schema: SCHEMA })).map(({ name }) => name)).toContain("slot-missing");

    expect(cli(url, "--recreate-slot")).toMatchObject({ status: 0 });
    await sql`insert into todos values (3, 'read again')`;
    await catchUp(url);
    expect(await tasks(sql)).toEqual(["CREATE read", "CREATE read again"]);
    const [gap, ...others] = await gaps(sql);
    expect(others).toEqual([]);
    expect(gap).toMatchObject({
      from: checkpoint?.end_lsn,
      is_same: true,
      reason: "the slot was gone",
      has_time: true,
    });
    const [bounds] = await sql`select ${gap?.to ?? ""}::pg_lsn >= ${before}::pg_lsn as is_after`;
    expect(bounds?.is_after).toBe(true);
    expect(await doctor(sql, { schema: SCHEMA })).toContainEqual(
      expect.objectContaining({
        severity: "error",
        name: "gap",
        repair: expect.stringMatching(/^bemi reconcile/),
      }),
    );
  });

  test("is not one whose name was misspelt: nothing is lost, and no gap is recommended", async () => {
    await using database = await open();
    const { db: sql, url } = database;
    await todos(sql);
    await catchUp(url);
    const [own] = await sql.unsafe(`select ${BEMI}.slot_name() as name`);
    const { status, stderr } = cli(url, "--slot", "bemi_misspelt");
    expect(stderr).toMatch(
      new RegExp(`There is no replication slot "bemi_misspelt"\\n {2}.*pass --slot ${String(own?.name)}\\.`),
    );
    expect([status, stderr]).toEqual([1, expect.not.stringContaining("--recreate-slot")]);
    expect(cli(url, "--slot", "No Name")).toMatchObject({
      status: 2,
      stderr: expect.stringMatching(/name of the slot cannot be used\n {2}Write 1 to 63/),
    });
    expect(await gaps(sql)).toEqual([]);
    // Once the other is gone as well, it is a loss.
    await sql.unsafe(`select pg_drop_replication_slot(${BEMI}.slot_name())`);
    expect(cli(url, "--slot", "bemi_other")).toMatchObject({ status: 5 });
  });

  test("ends a worker that streams, at once and for good", async () => {
    await using database = await open();
    const { db: sql, url } = database;
    await todos(sql);
    const events: WorkerEvent[] = [];
    const worker = runWorker({ source: url, mode: "stream", log: (event) => events.push(event) });
    await vi.waitFor(() => expect(events.map(({ kind }) => kind)).toContain("reading"), { timeout: 20_000 });
    await vi.waitFor(async () => {
      await sql.unsafe(
        `select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = ${BEMI}.slot_name()`,
      );
      await sql.unsafe(`select pg_drop_replication_slot(${BEMI}.slot_name())`);
    }, { timeout: 20_000, interval: 10 });
    await expect(worker.finished).rejects.toMatchObject({ code: "gap" });
  });

  test.each([[true, 4], [true, 3], [false, 4]])(
    "after the worker looked, and before it reads: as if it had been gone before (made anew by choice: %s; connection %s)",
    async (recreateSlot, at) => {
      await using database = await open();
      const { db: sql, url } = database;
      await todos(sql);
      await sql`insert into todos values (1, 'read')`;
      await catchUp(url);
      const { hostname: host, port } = new URL(url);
      const events: WorkerEvent[] = [];
      const kinds = (): string[] => events.map(({ kind }) => kind);
      let dropped: Promise<unknown> | undefined;
      let connections = 0;
      // After one to the source and one to the log, the third reads in bulk, and the fourth streams. With
      // faults of another kind before, which are no reason to make nothing anew.
      using proxy = await openProxy(() => {
        if (kinds().filter((kind) => kind === "retry").length < 6) return { host, port: 1 };
        if (++connections === at) {
          proxy.isSilent = true;
          dropped = sql.unsafe(`select pg_drop_replication_slot(${BEMI}.slot_name())`)
            .finally(() => void (proxy.isSilent = false));
        }
        return { host, port: Number(port) };
      });
      const source = new URL(url);
      source.port = String(proxy.port);
      await using worker = runWorker({
        source: source.href,
        mode: "stream",
        recreateSlot,
        log: (event) => events.push(event),
      });
      if (!recreateSlot) {
        await expect(worker.finished).rejects.toMatchObject({ code: "gap" });
        await dropped;
        expect(kinds()).not.toContain("reading");
        return;
      }
      await vi.waitFor(() => expect(events).toContainEqual(expect.objectContaining({ mode: "stream" })), {
        timeout: 60_000,
      });
      await dropped;
      await sql`insert into todos values (2, 'read again')`;
      await vi.waitFor(async () => expect(await tasks(sql)).toEqual(["CREATE read", "CREATE read again"]), {
        timeout: 20_000,
      });
      expect(kinds().filter((kind) => /gap|slot-created/.test(kind))).toHaveLength(2);
      expect(await gaps(sql)).toMatchObject([{ is_same: true, reason: "the slot was gone" }]);
      await worker.stop();
    },
  );

  test.each(["a worker that begins", "a worker that polls"])(
    "and one that another program has read are gaps alike: %s finds it ahead of the log",
    async (who) => {
      await using database = await open();
      const { db: sql, url } = database;
      await todos(sql);
      const events: WorkerEvent[] = [];
      const start = () =>
        runWorker({ source: url, mode: "poll", pollInterval: 100, log: (event) => events.push(event) });
      let worker = start();
      await sql`insert into todos values (1, 'read')`;
      await vi.waitFor(async () => expect(await tasks(sql)).toHaveLength(1), { timeout: 20_000 });
      const isRunning = who === "a worker that polls";
      if (!isRunning) await worker.stop();
      let attempt = 0;
      await vi.waitFor(() =>
        sql.begin(async (tx) => {
          // A worker that polls cannot look meanwhile; one that is just reading keeps the slot, and wins.
          await tx.unsafe("lock table pg_publication");
          await sql`insert into todos values (${10 + ++attempt}, ${`lost ${attempt}`})`;
          await tx.unsafe(
            `select count(*) from pg_logical_slot_get_binary_changes(${BEMI}.slot_name(), null, null,
              'proto_version', '1', 'publication_names', '${OWN_NAME}')`,
          );
        }), { timeout: 20_000, interval: 50 });
      if (!isRunning) worker = start();
      await sql`insert into todos values (3, 'read again')`;
      await vi.waitFor(async () => expect((await tasks(sql)).at(-1)).toBe("CREATE read again"), {
        timeout: 20_000,
      });
      expect(await gaps(sql)).toMatchObject([{ is_same: true, reason: "the slot was past the checkpoint" }]);
      expect(events).toContainEqual(expect.objectContaining({ kind: "gap" }));
      expect(await tasks(sql)).not.toContain(`CREATE lost ${attempt}`);
      await worker.stop();
    },
  );

  test("is made once, though several workers are told to", async () => {
    await using database = await open();
    const { db: sql, url } = database;
    await todos(sql);
    await catchUp(url);
    await sql.unsafe(`select pg_drop_replication_slot(${BEMI}.slot_name())`);
    await Promise.all([1, 2, 3].map(() => catchUp(url, { recreateSlot: true })));
    await sql`insert into todos values (1, 'read')`;
    await Promise.all([1, 2, 3].map(() => catchUp(url, { recreateSlot: true })));
    expect(await tasks(sql)).toEqual(["CREATE read"]);
    expect(await gaps(sql)).toHaveLength(1);
  });

  test("is made by a worker that loses its connection meanwhile, and is not ended by that", async () => {
    await using database = await open();
    const { db: sql, url } = database;
    await todos(sql);
    await catchUp(url);
    await sql.unsafe(`select pg_drop_replication_slot(${BEMI}.slot_name())`);
    const other = await sql.reserve();
    await other.unsafe("begin; insert into todos values (1, 'open')");
    const source = new URL(url);
    const { hostname: host, port } = new URL(url);
    using proxy = await openProxy(() => ({ host, port: Number(port) }));
    source.port = String(proxy.port);
    const worker = spawn(
      process.execPath,
      [bin, "--once", "--recreate-slot", "--database-url", source.href, "--schema", SCHEMA],
      { stdio: "ignore" },
    );
    const ended = once(worker, "exit");
    await vi.waitFor(async () =>
      expect(
        await sql`select from pg_stat_activity where query like 'select pg_create_logical_replication_slot%'
        and wait_event is not null and datname = current_database()`,
      ).toHaveLength(1), { timeout: 20_000 });
    proxy.cut();
    await other.unsafe("rollback");
    other.release();
    expect(await ended).toEqual([0, null]);
    expect(await gaps(sql)).toHaveLength(1);
  });

  test("waits a minute at most for transactions that are open, and says what it waits for", async () => {
    await using database = await open();
    const { db: sql } = database;
    await install(sql);
    await sql.unsafe("create table noise (v int)");
    const other = await sql.reserve();
    await other.unsafe("begin; insert into noise values (1)");
    // Expected from the start: it may be refused before the cancellation is answered.
    const refused = expect(createSlot(sql)).rejects.toMatchObject({
      code: "lock_timeout",
      hint: expect.stringMatching(/backend_xid/),
    });
    await vi.waitFor(async () => {
      const [row] =
        await sql`select pid from pg_stat_activity where query like '%pg_create_logical_replication_slot%'
        and wait_event is not null and datname = current_database() and pid <> pg_backend_pid()`;
      expect(row).toBeDefined();
      await sql`select pg_cancel_backend(${row?.pid}::int)`;
    }, { timeout: 20_000 });
    await refused;
    await other.unsafe("rollback");
    other.release();
    expect(await createSlot(sql)).toMatchObject({ created: true });
  });
});

describe.each(inject("servers").map(({ version }) => version))(
  "a server of one's own, PostgreSQL %s",
  (version) => {
    const withServer = async (
      fn: (server: Server, sql: postgres.Sql) => Promise<void>,
      settings: string[] = [],
    ): Promise<void> => {
      const server = await startServer(version, ["fsync=off", ...settings]);
      const sql = postgres(server.url(), { max: 3, onnotice() {} });
      try {
        await fn(server, sql);
      } finally {
        await sql.end({ timeout: 1 });
        await server.remove();
      }
    };

    const using = async (server: Server, fn: (sql: postgres.Sql) => Promise<void>): Promise<void> => {
      const sql = postgres(server.url(), { max: 3, onnotice() {} });
      try {
        await fn(sql);
      } finally {
        await sql.end({ timeout: 1 });
        await server.remove();
      }
    };

    test("WAL that it removed before it was read is a gap, and the worker says how to prevent it", () =>
      withServer(async (server, sql) => {
        await todos(sql);
        await sql`insert into todos values (1, 'read')`;
        await catchUp(server.url());
        for (let i = 0; i < 4; i++) {
          await sql`insert into todos values (${10 + i}, 'lost')`;
          await sql`select pg_switch_wal()`;
          await sql`checkpoint`;
        }
        expect((await doctor(sql, { schema: SCHEMA })).map(({ name }) => name)).toContain("slot-lost");
        expect(cli(server.url())).toMatchObject({
          status: 5,
          stderr: expect.stringMatching(
            /invalidated \(wal_removed\)[^]*--recreate-slot[^]*max_slot_wal_keep_size/,
          ),
        });
        expect(await gaps(sql)).toEqual([]);
        await catchUp(server.url(), { recreateSlot: true });
        await sql`insert into todos values (2, 'read again')`;
        await catchUp(server.url());
        expect(await tasks(sql)).toEqual(["CREATE read", "CREATE read again"]);
        expect(await gaps(sql)).toEqual([
          expect.objectContaining({ reason: "the slot was invalidated (wal_removed)", is_same: true }),
        ]);
      }, ["max_slot_wal_keep_size=1MB", "min_wal_size=32MB", "max_wal_size=32MB"]));

    test.runIf(Number(version) >= 18)(
      "a slot that nobody read for too long, and that the server therefore let go, is a gap alike",
      () =>
        withServer(async (server, sql) => {
          await todos(sql);
          await sql`insert into todos values (1, 'read')`;
          await catchUp(server.url());
          await sql`insert into todos values (2, 'lost')`;
          await sql`alter system set idle_replication_slot_timeout = '1s'`;
          await sql`select pg_reload_conf()`;
          await vi.waitFor(async () => {
            await sql`checkpoint`;
            const rows =
              await sql`select from pg_replication_slots where invalidation_reason = 'idle_timeout'`;
            expect(rows).toHaveLength(1);
          }, { timeout: 30_000, interval: 300 });
          await sql`alter system reset idle_replication_slot_timeout`;
          await sql`select pg_reload_conf()`;
          expect(cli(server.url())).toMatchObject({
            status: 5,
            stderr: expect.stringMatching(/invalidated \(idle_timeout\)[^]*idle_replication_slot_timeout/),
          });
          await catchUp(server.url(), { recreateSlot: true });
          await sql`insert into todos values (3, 'read again')`;
          await catchUp(server.url());
          expect(await tasks(sql)).toEqual(["CREATE read", "CREATE read again"]);
          expect(await gaps(sql)).toMatchObject([{ reason: "the slot was invalidated (idle_timeout)" }]);
        }),
    );

    test("after a restore from a base backup, which has no slots, reading goes on under a new source, after a gap", () =>
      withServer(async (server, sql) => {
        await todos(sql);
        await sql`insert into todos values (1, 'read')`;
        await catchUp(server.url());
        const copy = await server.copy("restore");
        await copy.start();
        await using(copy, async (restored) => {
          await restored`insert into todos values (2, 'lost')`;
          expect(cli(copy.url())).toMatchObject({ status: 5, stderr: expect.stringMatching(/is gone/) });
          await catchUp(copy.url(), { recreateSlot: true });
          await restored`insert into todos values (3, 'read again')`;
          await catchUp(copy.url());
          expect(await tasks(restored)).toEqual(["CREATE read", "CREATE read again"]);
          expect(await gaps(restored)).toEqual([expect.objectContaining({ is_same: false })]);
        });
      }));

    test("set back to a copy of its files, it is not taken for the server that it was", () =>
      withServer(async (server, sql) => {
        const log = postgres(server.url(), { max: 1, onnotice() {} });
        await todos(sql);
        // The log is elsewhere, and does not go back with the server.
        const archive = await startServer(version);
        await using(archive, async (archived) => {
          await install(archived);
          const destination = archive.url();
          await sql`insert into todos values (1, 'before')`;
          await catchUp(server.url(), { destination });
          const copy = await server.copy("files");
          await sql.unsafe("insert into todos select n, 'undone' from generate_series(2, 2000) n");
          await catchUp(server.url(), { destination });
          await copy.start();
          await using(copy, async (restored) => {
            await restored`insert into todos values (2, 'lost')`;
            expect(cli(copy.url(), "--destination-url", destination)).toMatchObject({
              status: 5,
              stderr: expect.stringMatching(/set back to a copy of its files/),
            });
            await catchUp(copy.url(), { destination, recreateSlot: true });
            await restored`insert into todos values (3, 'after')`;
            await catchUp(copy.url(), { destination });
            const told = await tasks(archived);
            expect(told).toHaveLength(2001);
            expect(told.at(-1)).toBe("CREATE after");
            expect(await gaps(archived)).toEqual([
              expect.objectContaining({
                is_same: false,
                reason: "the server was set back to a copy of its files",
              }),
            ]);
          });
        });
        await log.end();
      }));

    test.runIf(Number(version) >= 17)(
      "a failover slot goes on at the standby that was promoted: nothing lost, nothing twice, no gap",
      () =>
        withServer(async (server, sql) => {
          await todos(sql, { failover: true });
          await sql`select pg_create_physical_replication_slot('standby')`;
          const standby = await server.copy("standby", [
            `primary_conninfo=host=127.0.0.1 port=${
              new URL(server.url()).port
            } user=postgres dbname=postgres`,
            "primary_slot_name=standby",
            "hot_standby_feedback=on",
            "sync_replication_slots=on",
          ]);
          await standby.start();
          const archive = await startServer(version);
          await using(archive, async (archived) => {
            await install(archived);
            const destination = archive.url();
            await using(standby, async (replica) => {
              await sql`insert into todos values (1, 'before')`;
              await catchUp(server.url(), { destination });
              await sql`insert into todos values (2, 'unread')`;
              await vi.waitFor(async () => {
                // The slot moves a little, as with every heartbeat, until the standby has it.
                await sql`select pg_log_standby_snapshot()`;
                const rows =
                  await replica`select from pg_replication_slots where failover and synced and not temporary`;
                expect(rows).toHaveLength(1);
                const [row] = await replica`select pg_last_wal_replay_lsn() >= ${await lsn(
                  sql,
                )}::pg_lsn as is_there`;
                expect(row?.is_there).toBe(true);
              }, { timeout: 60_000, interval: 300 });
              // One that goes on by itself, as it knows of both.
              const both = new URL(server.url()).host;
              const source = standby.url().replace("@", `@${both},`);
              const events: string[] = [];
              await using _worker = runWorker({
                source: `${source}?target_session_attrs=primary`,
                destination,
                log: ({ kind }) => void events.push(kind),
              });
              await vi.waitFor(
                async () => expect(await tasks(archived)).toEqual(["CREATE before", "CREATE unread"]),
                { timeout: 30_000 },
              );
              await server.stop("immediate");
              await vi.waitFor(() => expect(events).toContain("retry"), { timeout: 30_000 });
              await replica`select pg_promote()`;
              await replica`insert into todos values (3, 'after')`;
              await vi.waitFor(
                async () =>
                  expect(await tasks(archived)).toEqual(["CREATE before", "CREATE unread", "CREATE after"]),
                { timeout: 60_000 },
              );
              expect(await gaps(archived)).toEqual([]);
              const sources = await archived.unsafe(`select distinct source_id from ${BEMI}.changes`);
              expect(sources).toHaveLength(2);
            });
          });
        }),
    );

    test("without a failover slot a promoted standby is a gap; what it had not received is one as well", () =>
      withServer(async (server, sql) => {
        await todos(sql);
        const standby = await server.copy("standby", [
          `primary_conninfo=host=127.0.0.1 port=${new URL(server.url()).port} user=postgres`,
          "max_standby_streaming_delay=-1",
        ]);
        await standby.start();
        const archive = await startServer(version);
        await using(archive, async (archived) => {
          await install(archived);
          const destination = archive.url();
          await using(standby, async (replica) => {
            await sql`insert into todos values (1, 'everywhere')`;
            const at = await lsn(sql);
            await vi.waitFor(async () => {
              const [row] = await replica`select pg_last_wal_replay_lsn() >= ${at}::pg_lsn as is_there`;
              expect(row?.is_there).toBe(true);
            }, { timeout: 20_000 });
            // What is written while it is away is read, and gone with the server.
            await standby.stop();
            await sql`insert into todos values (2, 'read, then lost by the server')`;
            await catchUp(server.url(), { destination });
            await server.stop("immediate");
            await standby.start();
            await replica`select pg_promote()`;
            await replica`insert into todos values (3, 'lost')`;
            expect(cli(standby.url(), "--destination-url", destination)).toMatchObject({ status: 5 });
            await catchUp(standby.url(), { destination, recreateSlot: true });
            await replica`insert into todos values (4, 'after')`;
            await catchUp(standby.url(), { destination });
            expect((await tasks(archived)).slice(-1)).toEqual(["CREATE after"]);
            expect((await gaps(archived)).map(({ reason, is_same }) => [reason, is_same])).toEqual([
              ["the log holds what the promoted server had not received", true],
              ["the slot was gone", false],
            ]);
          });
        });
      }));
  },
);
