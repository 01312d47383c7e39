import postgres from "postgres";
import { install, track } from "@bemi/core/install";
import { createSlot } from "@bemi/core/worker";
import { startServer } from "../test/support/servers.ts";
import { until, type WorkerProcess, workerProcess } from "./worker-process.ts";

const MINUTES = Number(process.env.BENCH_MINUTES ?? 1);
const KEPT = 64;

interface Lane {
  readonly mode: "stream" | "poll";
  readonly sql: postgres.Sql;
  readonly worker: WorkerProcess;
  greatestLag: number;
  residents: number[];
}

/**
 * Does the slot advance while nothing is written that concerns it? Only untracked tables and another database are, and
 * the server keeps so little WAL for a slot that one which stands still is lost within the first minutes.
 */
export async function advance(version: string): Promise<void> {
  const server = await startServer(version, [
    `max_slot_wal_keep_size=${KEPT}MB`,
    "max_wal_size=64MB",
    "min_wal_size=32MB",
    "checkpoint_timeout=30s",
    "fsync=off",
  ]);
  const lanes: Lane[] = [];
  const admin = postgres(server.url(), { max: 1, onnotice() {} });
  try {
    await admin.unsafe("create table elsewhere (v text)");
    for (const mode of ["stream", "poll"] as const) {
      await admin.unsafe(`create database ${mode}_lane`);
      const url = server.url(`${mode}_lane`);
      const sql = postgres(url, { max: 1, onnotice() {} });
      await install(sql);
      await createSlot(sql);
      await sql.unsafe("create table todos (id int primary key, task text); create table noise (v text)");
      await track(sql, "todos", { capture: "wal" });
      const worker = workerProcess(url, ["--mode", mode]);
      lanes.push({ mode, sql, worker, greatestLag: 0, residents: [] });
    }
    await measure(admin, lanes);
    for (const lane of lanes) await result(lane);
  } finally {
    for (const { worker, sql } of lanes) {
      await worker[Symbol.asyncDispose]();
      await sql.end();
    }
    await admin.end();
    await server.remove();
  }
}

async function measure(admin: postgres.Sql, lanes: readonly Lane[]): Promise<void> {
  const noise = (table: string, rows: number): string =>
    `truncate ${table}; insert into ${table} select repeat('x', 1000) from generate_series(1, ${rows})`;
  const position = async (): Promise<number> =>
    Number((await admin.unsafe("select pg_current_wal_lsn() - '0/0'::pg_lsn as at"))[0]?.at);
  const [startedAt, startLsn] = [Date.now(), await position()];
  const elapsed = (): number => (Date.now() - startedAt) / 60_000;
  let saidAt = 0;
  for (let second = 0; elapsed() < MINUTES; second++) {
    // In turns of a minute: another database alone, untracked tables of the same, both, and nobody at all.
    const turn = Math.floor(second / 60) % 4;
    if (turn === 0 || turn === 2) await admin.unsafe(noise("elsewhere", 1000));
    if (turn === 1 || turn === 2) { for (const { sql } of lanes) await sql.unsafe(noise("noise", 500)); }
    for (const lane of lanes) {
      const [slot] = await lane.sql.unsafe(
        `select (pg_current_wal_lsn() - confirmed_flush_lsn)::float8 / 1048576 as lag, wal_status
        from pg_replication_slots where database = current_database()`,
      );
      if (slot?.wal_status === "lost") throw new Error(`${lane.mode}: the slot is lost`);
      lane.greatestLag = Math.max(lane.greatestLag, slot?.lag as number);
    }
    if (elapsed() - saidAt >= Math.min(5, MINUTES / 2)) {
      saidAt = elapsed();
      for (const lane of lanes) lane.residents.push(lane.worker.residentMegabytes());
      const written = (await position() - startLsn) / 2 ** 20;
      console.log(
        `  after ${saidAt.toFixed(1)} minutes: ${
          Math.round(written)
        } MB of WAL, of which a slot may keep ${KEPT}; ` +
          lanes.map(({ mode, greatestLag, worker }) =>
            `${mode}: ${greatestLag.toFixed(1)} MB behind at most, ${
              Math.round(worker.residentMegabytes())
            } MB resident`
          ).join("; "),
      );
    }
    await new Promise((done) => setTimeout(done, 1000));
  }
}

async function result({ mode, sql, worker, greatestLag, residents }: Lane): Promise<void> {
  await sql.unsafe("insert into todos values (1, 'after all that')");
  const count = async (): Promise<number> =>
    Number((await sql.unsafe("select count(*) as n from bemi.changes"))[0]?.n);
  await until("the change afterwards is in the log", async () => await count() > 0);
  const [{ gaps } = { gaps: "" }] = await sql.unsafe<{ gaps: string }[]>(
    "select count(*) as gaps from bemi.gaps",
  );
  console.log(
    `${mode}: after ${MINUTES} minutes of others' writes at most ${greatestLag.toFixed(1)} MB behind, ` +
      `${await count()} change(s) in the log, ${gaps} gaps, resident ${
        residents.map(Math.round).join(", ")
      } MB, ` +
      `${worker.cpuSeconds().toFixed(1)} s of CPU`,
  );
}
