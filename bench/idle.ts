import postgres from "postgres";
import { install, track } from "@bemi/core/install";
import { createSlot } from "@bemi/core/worker";
import { type Server, startServer } from "../test/support/servers.ts";
import { cpuClock, tell } from "./measure.ts";
import { until, type WorkerProcess, workerProcess } from "./worker-process.ts";

const SECONDS = Number(process.env.BENCH_SECONDS ?? 20);

const NOISE = "insert into elsewhere select repeat('x', 1000) from generate_series(1, 100)";

interface Lane {
  readonly name: string;
  /** Of its connections' backends. */
  readonly clocks: readonly (() => bigint)[];
  readonly worker: WorkerProcess;
}

/**
 * What a worker costs while nothing happens, and while another database is written all the time: streaming, polling, and
 * standing by for another.
 */
export async function idle(version: string): Promise<void> {
  const server = await startServer(version);
  const lanes: Lane[] = [];
  try {
    for (const mode of ["stream", "poll"] as const) await start(server, mode, lanes);
    await measure(lanes, "An idle worker", version);
    const neighbour = postgres(server.url(), { max: 1, onnotice() {} });
    await neighbour.unsafe("create table elsewhere (v text)");
    const write = (): void => void neighbour.unsafe(NOISE).catch(() => {});
    const timer = setInterval(write, 100);
    try {
      await measure(lanes, "An idle worker beside a database that writes a megabyte a second", version);
    } finally {
      clearInterval(timer);
      await neighbour.end();
    }
  } finally {
    for (const { worker } of lanes) await worker[Symbol.asyncDispose]();
    await server.remove();
  }
}

/** A worker that reads in a way of its own, and another that stands by for it. */
async function start(server: Server, mode: "stream" | "poll", lanes: Lane[]): Promise<void> {
  const admin = postgres(server.url(), { max: 1, onnotice() {} });
  await admin.unsafe(`create database ${mode}_lane`);
  await admin.end();
  const url = server.url(`${mode}_lane`);
  const sql = postgres(url, { max: 1, onnotice() {} });
  await install(sql);
  await createSlot(sql);
  await sql.unsafe("create table todos (id int primary key, task text)");
  await track(sql, "todos", { capture: "wal" });
  const seen = new Set<number>();
  for (const isStandby of [false, true]) {
    // Two that poll take turns.
    if (isStandby && mode === "poll") break;
    const worker = workerProcess(url, ["--mode", mode]);
    const clocks: (() => bigint)[] = [];
    lanes.push({ name: isStandby ? "standing by" : mode, worker, clocks });
    const said = isStandby ? "standing by" : "How the Write-Ahead Log is read";
    await until(`"${said}"`, () => Promise.resolve(worker.log().includes(said)));
    const backends = await sql<{ pid: number }[]>`select pid from pg_stat_activity
      where datname = current_database() and application_name = 'bemi worker'`;
    for (const { pid } of backends.filter(({ pid }) => !seen.has(pid))) {
      seen.add(pid);
      clocks.push(cpuClock(pid));
    }
  }
  await sql.end();
}

async function measure(lanes: readonly Lane[], title: string, version: string): Promise<void> {
  // What starting up leaves behind is no idling: partitions made ahead, compilation, garbage.
  await new Promise((done) => setTimeout(done, 5000));
  const served = ({ clocks }: Lane): number => clocks.reduce((sum, clock) => sum + Number(clock()) / 1e9, 0);
  const before = lanes.map((lane) => [lane.worker.cpuSeconds(), served(lane)] as const);
  await new Promise((done) => setTimeout(done, SECONDS * 1000));
  console.log(
    `\n${title}, for ${SECONDS} s, PostgreSQL ${version} (share of one core; baseline: a process that only sleeps, 0)`,
  );
  for (const [i, lane] of lanes.entries()) {
    const { name, worker } = lane;
    const [cpu, serverCpu] = before[i] ?? [0, 0];
    const share = ((worker.cpuSeconds() - cpu) / SECONDS * 100).toFixed(2);
    const there = ((served(lane) - serverCpu) / SECONDS * 100).toFixed(2);
    const resident = `${Math.round(worker.residentMegabytes())} MB resident`;
    console.log(`  ${share} %  ${name}, ${there} % in the server, ${resident}`);
    tell(title, name, `${share} % of a core, ${there} % in the server, ${resident}`);
  }
}
