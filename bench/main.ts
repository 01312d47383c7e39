import { advance } from "./advance.ts";
import { edge } from "./edge.ts";
import { history } from "./history.ts";
import { idle } from "./idle.ts";
import { ingest } from "./ingest.ts";
import { latency } from "./latency.ts";
import { headlines } from "./measure.ts";
import { memory } from "./memory.ts";
import { overhead } from "./overhead.ts";
import { writeTable } from "./readme-table.ts";
import { stages } from "./stages.ts";
import { statements } from "./statements.ts";
import { testing } from "./testing.ts";
import { worker } from "./worker.ts";

const benches: Readonly<Record<string, (version: string) => Promise<void>>> = {
  advance,
  edge,
  history,
  idle,
  ingest,
  latency,
  memory,
  overhead,
  testing,
  stages,
  statements,
  worker,
};

// What is measured is the built package: a loader of sources may add to each closure what nobody ships.
// npm run bench -- ingest   (without a name all of them, in their short form, and the README's table is written anew;
// BENCH_SERVER=15 for another version. The long forms, by name and alone: BENCH_SHAPES=narrow,wide,small,huge,apart of
// worker; BENCH_STORED=10000000 of ingest; BENCH_CHANGES=10000000 of history; BENCH_ROWS=10000000 of memory, where
// BENCH_MODE="one transaction" is that alone; BENCH_MINUTES=60 of advance; BENCH_SECONDS of latency and idle)
const version = process.env.BENCH_SERVER ?? "18";
const isAll = process.argv.length <= 2;
const names = isAll ? Object.keys(benches) : process.argv.slice(2);
for (const name of names) {
  const bench = benches[name];
  if (!bench) {
    console.error(`Unknown bench "${name}": choose from ${Object.keys(benches).join(", ")}`);
    process.exit(2);
  }
  await bench(version);
}
if (isAll) writeTable(headlines, version);
