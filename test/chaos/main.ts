// npm run chaos -- --minutes 30 --seed 1 --server 18 --pause 1500
import { parseArgs } from "node:util";
import { chaos } from "./run.ts";

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "1" },
    seed: { type: "string", default: String(Date.now() % 100_000) },
    server: { type: "string", default: "18" },
    pause: { type: "string", default: "1500" },
  },
});
const minutes = Number(values.minutes);
const seed = Number(values.seed);
const { server } = values;
console.log(`${minutes} minutes on PostgreSQL ${server}, seed ${seed}, pause ${values.pause}`);
const { faults, transactions, changes, gaps, hasQuota, problems } = await chaos({
  seed,
  server,
  length: { minutes, pause: Number(values.pause) },
  log: console.error,
});
if (!hasQuota) console.log("  No disk can be mounted here: a trigger says what a full one would");
for (const [name, count] of Object.entries(faults).sort()) {
  console.log(`  ${String(count).padStart(5)}  ${name}`);
}
console.log(
  `  ${
    Object.values(faults).reduce((sum, n) => sum + n, 0)
  } faults, ${transactions} transactions, ${changes} changes, ${gaps} gaps recorded`,
);
for (const problem of problems) console.log(`WRONG: ${problem}`);
console.log(problems.length === 0 ? "Nothing lost, nothing repeated, every context its own" : "Failed");
process.exit(problems.length === 0 ? 0 : 1);
