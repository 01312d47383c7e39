import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import postgres from "postgres";
import { expect, test } from "vitest";
import { showBytes, showSeconds } from "../src/cli/amounts.ts";
import type { Io } from "../src/cli/io.ts";
import { statusScreen } from "../src/cli/status-screen.ts";
import {
  rolesSql,
  SCHEMA_VERSION,
  type Status,
  status as ask,
  type StatusOptions,
} from "../src/install/mod.ts";
import type { Database, DatabaseLike } from "../src/database/port.ts";
import { onEachDatabase, onEachServer } from "./support/databases.ts";
import { BEMI, createSlot, install, runWorker, SCHEMA, track } from "./support/installation.ts";
import { startServer } from "./support/servers.ts";
import { TODOS } from "./support/todos.ts";

const root = fileURLToPath(new URL("../", import.meta.url));
const bin = `${root}dist/src/cli/bin.js`;

const status = (db: DatabaseLike, options: StatusOptions = {}): Promise<Status> =>
  ask(db, { schema: SCHEMA, ...options });

function bemi(url: string, ...args: string[]) {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [bin, "status", "--schema", SCHEMA, "--database-url", url, ...args],
    { cwd: root, encoding: "utf8" },
  );
  return { status, stdout, stderr };
}

async function confirmed(port: Database, slot: string): Promise<bigint> {
  const [row] = await port.query<{ at: string }>(
    "select (confirmed_flush_lsn - '0/0')::text as at from pg_replication_slots where slot_name = $1",
    [slot],
  );
  return BigInt(row?.at ?? 0);
}

const screen = (found: Status, isColoured = false): string =>
  statusScreen(found, SCHEMA, { isColoured } as Io);

onEachDatabase("status", (open) => {
  test("tells what is installed, tracked and in the log, and nothing of a slot where there is none", async () => {
    await using database = await open();
    const { db, port } = database;
    await expect(status(db)).rejects.toMatchObject({ code: "schema_missing" });
    await install(db);
    await port.execute(TODOS);
    expect(await status(db)).toMatchObject({
      version: SCHEMA_VERSION,
      trackAll: false,
      tables: [],
      workers: [],
      isLossy: false,
      unseen: [],
      log: { gaps: [], setAside: 0, seal: "off", defaultPartition: { rows: 0, bytes: 0 } },
    });
    await track(db, "todos", { mask: ["task"], ignore: ["list_id"] });
    await port.execute("insert into todos (task) values ('Sleep')");
    await port.execute(`update ${BEMI}.settings set track_all = true`);
    const found = await status(db);
    expect(found).toMatchObject({
      trackAll: true,
      tables: [{ schema: "public", table: "todos", capture: "trigger", mask: ["task"], ignore: ["list_id"] }],
    });
    expect(found.slot).toBeUndefined();
    expect(found.log.lastChangeAge).toBeLessThan(60);
    expect(screen(found)).toMatch(
      /1 tracked, 0 from the Write-Ahead Log, 1 by triggers\n +public\.todos {2}trigger {2}ignores list_id {2}masks task\n/,
    );
    expect(screen(found)).not.toContain("slot");
    // A change that no month's partition takes.
    await port.execute(
      `do $$ begin execute (select format('drop table %s', string_agg(inhrelid::regclass::text, ', '))
      from pg_inherits where inhparent = '${BEMI}.changes'::regclass and inhrelid <> '${BEMI}.changes_default'::regclass); end $$`,
    );
    await port.execute("insert into todos (task) values ('Eat')");
    expect((await status(db)).log).toMatchObject({ defaultPartition: { rows: 1 } });
    expect(screen(await status(db))).toContain("the default one holds 1 changes: bemi maintain");
  });
});

onEachServer("bemi status", (open, version) => {
  test("shows slot, worker and log on one screen, and changes in them", async () => {
    await using database = await open();
    const { db, port, url } = database;
    await install(db);
    await port.execute(TODOS);
    const { slot } = await createSlot(db);
    await track(db, "todos", { capture: "wal" });
    await port.execute("insert into todos (task) values ('Sleep')");
    const before = await status(db);
    const unread = await confirmed(port, slot);
    expect(before).toMatchObject({
      slot: { name: slot, walStatus: "reserved", active: false },
      workers: [],
      isLossy: false,
    });
    expect(before.slot?.confirmedLag).toBeGreaterThan(0);
    expect(screen(before)).toContain("read by nobody");

    await runWorker({ source: url, once: true }).finished;
    const ran = bemi(url);
    expect(ran.stderr).toBe("");
    expect(ran.status).toBe(0);
    expect(ran.stdout).not.toContain("\u001b");
    for (
      const part of ["reserved", "max_slot_wal_keep_size", "last change", "checkpoint", "none", "todos  wal"]
    ) {
      expect(ran.stdout).toContain(part);
    }
    expect(ran.stdout.split("\n").length).toBeLessThan(24);

    const json = JSON.parse(bemi(url, "--json").stdout) as Status;
    // Not its lag, to which whatever else runs in the cluster adds.
    expect(await confirmed(port, slot) > unread).toBe(true);
    expect(json.log.checkpoint).toMatchObject({ slot });
    expect(json.slot).not.toHaveProperty("safeWalSize");

    await port.execute(`insert into ${BEMI}.set_aside (id, change, sqlstate)
      values (gen_random_uuid(), '{"private": 1}', '22P05')`);
    const aside = bemi(url);
    expect([aside.status, aside.stdout]).toEqual([0, expect.stringContaining("1 set aside")]);
    expect(aside.stdout).not.toContain("private");
  });

  test("exits with 1 where the slot is gone, and where a gap was recorded", async () => {
    await using database = await open();
    const { db, port, url } = database;
    await install(db);
    await port.execute(TODOS);
    const { slot } = await createSlot(db);
    await track(db, "todos", { capture: "wal" });
    await runWorker({ source: url, once: true }).finished;
    await db`select pg_drop_replication_slot(${slot})`;
    const missing = bemi(url);
    expect([missing.status, missing.stdout, missing.stderr]).toEqual([
      1,
      expect.stringContaining(`${slot} is missing`),
      expect.stringContaining("Changes were lost"),
    ]);
    expect((JSON.parse(bemi(url, "--json").stdout) as Status).isLossy).toBe(true);
    await port.execute("insert into todos (task) values ('lost')");
    await createSlot(db);
    await runWorker({ source: url, once: true }).finished.catch(() => {});
    const gap = bemi(url);
    expect([gap.status, gap.stdout]).toEqual([1, expect.stringMatching(/^gaps +[0-9A-F]+\/[0-9A-F]+ to /m)]);
    await port.execute(`update ${BEMI}.gaps set reconciled_at = now()`);
    expect(bemi(url)).toMatchObject({ status: 0, stderr: "" });
  });

  test("says when WAL will be lost, and that it is", async () => {
    const server = await startServer(version, [
      "fsync=off",
      "max_slot_wal_keep_size=64MB",
      "min_wal_size=32MB",
      "max_wal_size=64MB",
      "logical_decoding_work_mem=64kB",
    ]);
    const db = postgres(server.url(), { max: 1, onnotice() {} });
    try {
      await install(db);
      await db.unsafe(TODOS);
      await createSlot(db);
      await track(db, "todos", { capture: "wal" });
      await db.unsafe("insert into todos (task) select 'large' from generate_series(1, 5000)");
      expect(screen(await status(db))).not.toContain("spilled");
      await runWorker({ source: server.url(), once: true }).finished;
      const first = await status(db);
      expect(first.slot?.spilledBytes).toBeGreaterThan(64 * 1024);
      expect(first.slot?.spilledTransactions).toBeGreaterThan(0);
      expect(screen(first)).toMatch(/the server spilled [\d.]+ [kM]B of large transactions to its disk/);
      await db.unsafe(
        "create table noise as select repeat(md5(i::text), 30) from generate_series(1, 3000) i",
      );
      const then = await status(db, { since: first });
      expect(then.slot?.walRate).toBeGreaterThan(0);
      expect(then.slot?.safeWalSize).toBeGreaterThan(0);
      const { safeWalSize = 0, walRate = 1, timeToLoss = 0 } = then.slot ?? {};
      expect(timeToLoss).toBeCloseTo(safeWalSize / walRate, 3);
      expect(screen(then)).toMatch(/loses WAL after [\d.]+ MB more at [\d.]+ [kM]?B\/s: /);
      expect(bemi(server.url()).stdout).toMatch(/loses WAL after [\d.]+ MB more at \d/);
      for (let i = 0; i < 12; i++) {
        await db.unsafe("insert into noise select 'x'; select pg_switch_wal()");
        if (i % 4 === 3) await db.unsafe("checkpoint");
      }
      const lost = await status(db);
      expect(lost).toMatchObject({ slot: { walStatus: "lost" }, isLossy: true });
      expect(screen(lost, true)).toContain("\u001b[31m");
      const ran = bemi(server.url());
      expect([ran.status, ran.stdout]).toEqual([1, expect.stringMatching(/ is lost.*: see bemi doctor/)]);
    } finally {
      await db.end({ timeout: 1 });
      await server.remove();
    }
  });

  test("reader and worker see what their rights reach, and are told what they do not", async () => {
    await using database = await open();
    const { db, port, url } = database;
    await install(db);
    await port.execute(TODOS);
    const { slot } = await createSlot(db);
    await track(db, "todos", { capture: "wal" });
    const name = new URL(url).pathname.slice(1);
    const roles = ["reader", "worker", "application"].map((role) => `${name}_${role}`);
    await port.execute(
      rolesSql({ schema: SCHEMA }).replaceAll(/bemi_(application|reader|worker)/g, `${name}_$1`),
    );
    try {
      for (const role of roles) await port.execute(`alter role ${role} login`);
      await port.execute("insert into todos (task) values ('Sleep')");
      await runWorker({ source: url.replace("postgres@", `${name}_worker@`), once: true }).finished;

      const reader = await status(database.connect({ username: `${name}_reader` }));
      expect(reader.log).toMatchObject({ gaps: [], defaultPartition: { bytes: 0 } });
      expect(reader.log.lastChangeAge).toBeGreaterThan(0);
      expect(reader.unseen).toEqual(expect.arrayContaining(["checkpoint", "seal"]));
      // Its slot is known by its name.
      expect(reader.slot).toMatchObject({ name: slot, walStatus: "reserved" });
      expect(screen(reader)).toMatch(/^unseen +this role may not see: .*checkpoint/m);

      const worker = bemi(url.replace("postgres@", `${name}_worker@`), "--json");
      expect([worker.status, worker.stderr]).toEqual([0, ""]);
      const seenByWorker = JSON.parse(worker.stdout) as Status;
      expect(seenByWorker).toMatchObject({
        tables: [{ table: "todos", capture: "wal" }],
        slot: { name: slot },
        log: { checkpoint: { slot } },
      });
      expect(seenByWorker.unseen).toEqual(expect.arrayContaining(["last change", "rows set aside", "seal"]));

      const application = bemi(url.replace("postgres@", `${name}_application@`));
      expect([application.status, application.stdout]).toEqual([1, ""]);
      expect(application.stderr).toContain("This role may not look into the schema");
    } finally {
      for (const role of roles) await port.execute(`drop owned by ${role}; drop role ${role}`);
    }
  });

  test("looks into two databases where the log is in another", async () => {
    await using database = await open();
    await using destination = await open();
    await install(database.db);
    await install(destination.db);
    await database.port.execute(TODOS);
    await createSlot(database.db);
    await track(database.db, "todos", { capture: "wal" });
    await database.port.execute("insert into todos (task) values ('Sleep')");
    await runWorker({ source: database.url, destination: destination.url, once: true }).finished;
    const { stdout } = bemi(database.url, "--destination-url", destination.url, "--json");
    const found = JSON.parse(stdout) as Status;
    expect(found.log.lastChangeAge).toBeGreaterThan(0);
    expect(found.slot?.name).toBe(found.log.checkpoint?.slot);
    expect((await status(database.db)).log.lastChangeAge).toBeUndefined();
  });

  test("--watch goes on until SIGTERM, with a rate from the second look on", async () => {
    await using database = await open();
    await install(database.db);
    const child = spawn(process.execPath, [
      bin,
      "status",
      "--json",
      "--watch",
      "1",
      ...["--schema", SCHEMA, "--database-url", database.url],
    ]);
    const exit = once(child, "exit");
    const lines: Status[] = [];
    for await (const line of createInterface(child.stdout)) {
      if (lines.push(JSON.parse(line) as Status) === 3) child.kill("SIGTERM");
    }
    expect(await exit).toEqual([0, null]);
    expect(lines.length).toBeGreaterThanOrEqual(3);
    expect(lines.every(({ isLossy }) => isLossy === false)).toBe(true);
  });
});

test("sizes and spans are short", () => {
  expect([0, 999, 1536, 16 * 1024 ** 2, 1024 ** 3 * 10.25, 1e18].map(showBytes)).toEqual([
    "0 B",
    "999 B",
    "1.5 kB",
    "16 MB",
    "10.3 GB",
    "888 PB",
  ]);
  expect([0.2, 59, 60, 3661, 86_400 * 3 + 3600 * 4, 86_400 * 2000].map(showSeconds)).toEqual([
    "less than 1 s",
    "59 s",
    "1 min",
    "1 h 1 min",
    "3 d 4 h",
    "2,000 d",
  ]);
});
