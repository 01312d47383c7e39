import { advance } from "./advance.ts";
import { history } from "./history.ts";
import { idle } from "./idle.ts";
import { ingest } from "./ingest.ts";
import { latency } from "./latency.ts";
import { memory } from "./memory.ts";
import { overhead } from "./overhead.ts";
import { stages } from "./stages.ts";
import { statements } from "./statements.ts";
import { testing } from "./testing.ts";
import { worker } from "./worker.ts";

const benches: Readonly<Record<string, (version: string) => Promise<void>>> = {
  advance,
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

// npm run bench -- ingest   (all of them without a name; BENCH_SERVER=15 for another version)
const names = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(benches);
for (const name of names) {
  const bench = benches[name];
  if (!bench) {
    console.error(`Unknown bench "${name}": choose from ${Object.keys(benches).join(", ")}`);
    process.exit(2);
  }
  await bench(process.env.BENCH_SERVER ?? "18");
}
