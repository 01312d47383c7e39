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
const options = {
  minutes: Number(values.minutes),
  seed: Number(values.seed),
  server: values.server,
  pause: Number(values.pause),
};
console.log(`${options.minutes} minutes on PostgreSQL ${options.server}, seed ${options.seed}`);
const { faults, transactions, changes, gaps, problems } = await chaos({ ...options, log: console.error });
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
