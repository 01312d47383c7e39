import postgres from "postgres";
import { install, track } from "@bemi/core/install";
import { createSlot } from "@bemi/core/worker";
import { startServer } from "../test/support/servers.ts";
import { tell } from "./measure.ts";
import { until, workerProcess } from "./worker-process.ts";

const ROWS = Number(process.env.BENCH_ROWS ?? 200_000);
const BATCH = Math.min(500_000, ROWS / 4);

/**
 * What a worker has resident: over many changes, of which each tenth of the way is printed (flat is the bar), and over
 * one transaction that is as large. The baseline is the same worker before its first change.
 */
export async function memory(version: string): Promise<void> {
  const only = process.env.BENCH_MODE;
  for (const mode of ["stream", "poll", "one transaction"] as const) {
    if (only === undefined || only === mode) await run(version, mode);
  }
}

async function run(version: string, mode: "stream" | "poll" | "one transaction"): Promise<void> {
  const server = await startServer(version, ["fsync=off", "max_wal_size=4GB"]);
  const sql = postgres(server.url(), { max: 1, onnotice() {} });
  try {
    await install(sql);
    await createSlot(sql);
    await sql.unsafe("create table todos (id int primary key, task text, is_completed boolean, list_id int)");
    await track(sql, "todos", { capture: "wal" });
    await using worker = workerProcess(server.url(), mode === "one transaction" ? [] : ["--mode", mode]);
    await until("it reads", () => Promise.resolve(worker.log().includes("How the Write-Ahead Log is read")));
    const before = Math.round(worker.residentMegabytes());
    const startedAt = Date.now();
    const residents: number[] = [];
    if (mode === "one transaction") {
      await sql.unsafe(
        `insert into todos select n, 'todo ' || n, false, n % 10 from generate_series(1, ${ROWS}) n`,
      );
      await stored(sql, ROWS, () => void residents.push(worker.residentMegabytes()));
    }
    for (let done = 0; mode !== "one transaction" && done < ROWS; done += BATCH) {
      const rows = Math.min(BATCH, ROWS - done);
      // As an application writes: many transactions, while the worker reads.
      await sql.unsafe("truncate todos");
      await sql.unsafe(`do $$ begin for i in 0..${rows / 100 - 1} loop
        insert into todos select i * 100 + n, 'todo ' || i, false, n from generate_series(1, 100) n; commit;
        end loop; end $$`);
      await stored(sql, rows + 1);
      residents.push(worker.residentMegabytes());
      await sql.unsafe("begin; set local bemi.maintenance = 'on'; truncate bemi.changes; commit; checkpoint");
    }
    const title = `The worker's memory over ${ROWS.toLocaleString("en")} changes, PostgreSQL ${version}`;
    const peak = Math.round(worker.peakMegabytes());
    console.log(
      `\n${title}, ${mode}: ${before} MB before, ${
        tenths(residents).join(", ")
      } MB on the way, ${peak} MB at most ` +
        `(${Math.round((Date.now() - startedAt) / 1000)} s, ${worker.cpuSeconds().toFixed(0)} s of CPU)`,
    );
    tell(title, mode, `${peak} MB at most`, `${before} MB before the first`);
  } finally {
    await sql.end();
    await server.remove();
  }
}

/** Waits for the change that comes last, then counts: none is missing, none is there twice. */
async function stored(sql: postgres.Sql, rows: number, look: () => void = () => {}): Promise<void> {
  await sql.unsafe("insert into todos values (-1, 'the last')");
  await until("the last change is in the log", async () => {
    look();
    const found = await sql.unsafe(`select from bemi.changes where "table" = 'todos' and primary_key = '-1'`);
    return found.length > 0;
  }, 3_600_000);
  const [row] = await sql.unsafe("select count(*)::int as n from bemi.changes");
  if (row?.n !== rows + 1) throw new Error(`${row?.n} changes are in the log, of ${rows + 1}`);
}

/** At most ten of them, evenly spread, the last among them. */
function tenths(values: readonly number[]): number[] {
  const step = Math.max(1, values.length / 10);
  const picked: number[] = [];
  for (let at = values.length - 1; at >= 0; at -= step) {
    picked.unshift(Math.round(values[Math.floor(at)] ?? 0));
  }
  return picked;
}
