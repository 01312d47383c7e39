import postgres from "postgres";
import { install, track } from "../src/install/mod.ts";
import { createSlot } from "../src/worker/mod.ts";
import { type Server, startServer } from "../test/support/servers.ts";
import { tell } from "./measure.ts";
import { until, type WorkerProcess, workerProcess } from "./worker-process.ts";

const SECONDS = Number(process.env.BENCH_SECONDS ?? 20);

interface Lane {
  readonly name: string;
  readonly worker: WorkerProcess;
}

/** What a worker costs while nothing happens: streaming, polling, and standing by for another. */
export async function idle(version: string): Promise<void> {
  const server = await startServer(version);
  const lanes: Lane[] = [];
  try {
    for (const mode of ["stream", "poll"] as const) await start(server, mode, lanes);
    await measure(lanes, version);
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
  for (const isStandby of [false, true]) {
    // Two that poll take turns.
    if (isStandby && mode === "poll") break;
    const worker = workerProcess(url, ["--mode", mode]);
    lanes.push({ name: isStandby ? "standing by" : mode, worker });
    const said = isStandby ? "standing by" : "How the Write-Ahead Log is read";
    await until(`"${said}"`, () => Promise.resolve(worker.log().includes(said)));
  }
  await sql.end();
}

async function measure(lanes: readonly Lane[], version: string): Promise<void> {
  // What starting up leaves behind is no idling: partitions made ahead, compilation, garbage.
  await new Promise((done) => setTimeout(done, 5000));
  const before = lanes.map(({ worker }) => worker.cpuSeconds());
  await new Promise((done) => setTimeout(done, SECONDS * 1000));
  console.log(
    `\nIdle for ${SECONDS} s, PostgreSQL ${version} (share of one core; baseline: a process that only sleeps, 0)`,
  );
  for (const [i, { name, worker }] of lanes.entries()) {
    const share = (worker.cpuSeconds() - (before[i] ?? 0)) / SECONDS * 100;
    const resident = `${Math.round(worker.residentMegabytes())} MB resident`;
    console.log(`  ${share.toFixed(2)} %  ${name}, ${resident}`);
    tell("An idle worker", name, `${share.toFixed(2)} % of a core, ${resident}`);
  }
}
