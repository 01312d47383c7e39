import { spawn } from "node:child_process";
import { once } from "node:events";
import postgres from "postgres";
import { install, track } from "@bemi/core/install";
import { createSlot } from "@bemi/core/worker";
import { type Server, startServer } from "../test/support/servers.ts";
import { findClient } from "./find-client.ts";
import { tell } from "./measure.ts";
import { until, workerProcess } from "./worker-process.ts";

const SECONDS = Number(process.env.BENCH_SECONDS ?? 5);
const RATES = [100, 1000, 5000];

/** Milliseconds from commit to something, by id. */
interface Latencies {
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
  /** Transactions per second that the load came to. */
  readonly rate: number;
}

/**
 * From the commit of a change to the commit that makes it readable, both as the server dates them
 * (`track_commit_timestamp`), beside the delivery to pg_recvlogical and the INSERT of one row.
 */
export async function latency(version: string): Promise<void> {
  const server = await startServer(version, [
    "fsync=on",
    "track_commit_timestamp=on",
    "max_wal_size=4GB",
    // Nothing is decoded before it is on disk, where an asynchronous commit comes this late.
    "wal_writer_delay=10ms",
  ]);
  const sql = postgres(server.url(), { max: 1, onnotice() {} });
  try {
    await install(sql);
    const { slot } = await createSlot(sql);
    await sql.unsafe(`
      create table todos (id int primary key, task text);
      create procedure load(rate int, seconds int) language plpgsql as $$
      declare
        began timestamptz := clock_timestamp();
      begin
        set synchronous_commit = off;
        for i in 1 .. rate * seconds loop
          insert into todos values (i, '<' || i || '>');
          commit;
          -- In steps of a few milliseconds, for no sleep is shorter.
          if clock_timestamp() < began + make_interval(secs => i / rate::float8 - 0.002) then
            perform pg_sleep(i / rate::float8 - extract(epoch from clock_timestamp() - began));
            commit;
          end if;
        end loop;
      end $$`);
    await track(sql, "todos", { capture: "wal" });
    const inserted = await insertOfOneRow(sql);
    const title = `from commit to readable, PostgreSQL ${version}, fsync on`;
    console.log(`\nMilliseconds ${title} (INSERT of one row into the log: ${inserted.toFixed(1)})`);
    for (const rate of RATES) {
      const found: [string, Latencies][] = [];
      const received = await delivery(server, sql, slot, rate);
      if (received) found.push(["delivered to pg_recvlogical", received]);
      for (const mode of ["stream", "poll"] as const) {
        found.push([`readable, ${mode}`, await readable(server, sql, mode, rate)]);
      }
      for (const [name, { p50, p99, max, rate: came }] of found) {
        const beside = received && name.includes("stream")
          ? `, ${(p99 / (received.p99 + inserted)).toFixed(2)} of delivery and an INSERT (p99)`
          : "";
        const figures = `p50 ${p50.toFixed(1)}, p99 ${p99.toFixed(1)}, max ${max.toFixed(1)}${beside}`;
        console.log(`  ${figures}  ${name} at ${Math.round(came).toLocaleString("en")} transactions/s`);
        if (rate === 1000) tell(`Milliseconds ${title}`, `${name}, 1,000 transactions/s`, figures);
      }
    }
  } finally {
    await sql.end();
    await server.remove();
  }
}

async function insertOfOneRow(sql: postgres.Sql): Promise<number> {
  await sql.unsafe("create table one (like bemi.changes)");
  await sql.unsafe(
    `insert into one values (gen_random_uuid(), 'd', 'public', 'todos', '1', null, 'CREATE', '{}', '{"id": 1}', '{}',
    now(), now(), now(), 1, 1, 1, '0/1', 1)`,
  );
  const times: number[] = [];
  for (let i = 0; i < 50; i++) {
    const start = process.hrtime.bigint();
    await sql.unsafe("insert into bemi.changes select * from one");
    times.push(Number(process.hrtime.bigint() - start) / 1e6);
  }
  await sql.unsafe("begin; set local bemi.maintenance = 'on'; truncate bemi.changes; commit; drop table one");
  return times.sort((a, b) => a - b)[times.length >> 1] ?? 0;
}

async function load(server: Server, sql: postgres.Sql, rate: number): Promise<number> {
  await sql.unsafe(
    "truncate todos; begin; set local bemi.maintenance = 'on'; truncate bemi.changes; commit; checkpoint",
  );
  const writer = postgres(server.url(), { max: 1, onnotice() {} });
  const start = Date.now();
  await writer.unsafe(`call load(${rate}, ${SECONDS})`);
  const came = rate * SECONDS / (Date.now() - start) * 1000;
  await writer.end();
  return came;
}

async function readable(
  server: Server,
  sql: postgres.Sql,
  mode: "stream" | "poll",
  rate: number,
): Promise<Latencies> {
  await using worker = workerProcess(server.url(), ["--mode", mode]);
  await until("it reads", () => Promise.resolve(worker.log().includes("How the Write-Ahead Log is read")));
  const came = await load(server, sql, rate);
  await until("all is in the log", async () => {
    const [row] = await sql<
      { n: number }[]
    >`select count(*)::int as n from bemi.changes where operation = 'CREATE'`;
    return row?.n === rate * SECONDS;
  });
  const [row] = await sql<{ p50: number; p99: number; max: number }[]>`
    select percentile_cont(0.5) within group (order by ms) as p50, percentile_cont(0.99) within group (order by ms) as p99, max(ms)
    from (select extract(epoch from pg_xact_commit_timestamp(xmin) - committed_at)::float8 * 1000 as ms
      from bemi.changes where operation = 'CREATE') x`;
  if (!row) throw new Error("Nothing was measured");
  return { ...row, rate: came };
}

/** When the bytes of each row arrived, read from pg_recvlogical's output; on a slot of its own, as bare as it can be. */
async function delivery(
  server: Server,
  sql: postgres.Sql,
  slot: string,
  rate: number,
): Promise<Latencies | undefined> {
  const program = findClient("pg_recvlogical");
  if (!program) {
    console.log("  pg_recvlogical is not installed: that baseline is left out");
    return undefined;
  }
  await sql`select pg_replication_slot_advance(${slot}, pg_current_wal_flush_lsn())`;
  const child = spawn(program, [
    ...["-d", server.url(), "--slot", slot, "--start", "-f", "-", "--no-loop"],
    ...["-o", "proto_version=1", "-o", "publication_names=bemi"],
  ], { stdio: ["ignore", "pipe", "ignore"] });
  const arrived = new Map<number, number>();
  let rest = "";
  child.stdout.on("data", (chunk: Uint8Array) => {
    const now = performance.timeOrigin + performance.now();
    rest += chunk.toString();
    for (const [, id] of rest.matchAll(/<(\d+)>/g)) {
      if (!arrived.has(Number(id))) arrived.set(Number(id), now);
    }
    rest = rest.slice(-16);
  });
  const came = await load(server, sql, rate);
  await until("all was delivered", () => Promise.resolve(arrived.size === rate * SECONDS));
  child.kill("SIGINT");
  await once(child, "exit");
  // It may not have confirmed all that it got, which the worker would read once more.
  await sql`select pg_replication_slot_advance(${slot}, pg_current_wal_flush_lsn())`;
  const committed = await sql<
    { id: number; at: number }[]
  >`select id, extract(epoch from pg_xact_commit_timestamp(xmin))::float8 * 1000 as at from todos`;
  const sorted = committed.map(({ id, at }) => (arrived.get(id) ?? Infinity) - at).sort((a, b) => a - b);
  const at = (share: number): number => sorted[Math.ceil(share * sorted.length) - 1] ?? 0;
  return { p50: at(0.5), p99: at(0.99), max: at(1), rate: came };
}
