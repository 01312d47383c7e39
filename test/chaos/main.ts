// npm run chaos -- --minutes 30 --kills 500 --seed 1 --server 18
import { parseArgs } from "node:util";
import { chaos } from "./run.ts";

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "1" },
    seed: { type: "string", default: String(Date.now() % 100_000) },
    server: { type: "string", default: "18" },
    // At most so many milliseconds between two faults.
    pause: { type: "string", default: "1500" },
    // Workers that are killed besides, one after the other.
    kills: { type: "string", default: "0" },
    // Milliseconds between two transactions of a client, on average.
    lull: { type: "string", default: "0" },
  },
});
const [minutes, seed, pause, kills, lull] = [
  values.minutes,
  values.seed,
  values.pause,
  values.kills,
  values.lull,
].map(Number) as [number, number, number, number, number];
const { server } = values;
console.log(
  `${minutes} minutes on PostgreSQL ${server}, seed ${seed}, pause ${pause}, ${kills} kills, lull ${lull}`,
);
const { faults, killed, transactions, changes, gaps, hasQuota, problems } = await chaos({
  seed,
  server,
  length: { minutes, pause, kills },
  lull,
  log: console.error,
});
if (!hasQuota) console.log("  No disk can be mounted here: a trigger says what a full one would");
const total = (counts: Readonly<Record<string, number>>): number =>
  Object.values(counts).reduce((sum, n) => sum + n, 0);
for (const [name, count] of Object.entries(faults).sort()) {
  console.log(`  ${String(count).padStart(5)}  ${name}`);
}
console.log(
  `  ${total(faults)} faults, ${transactions} transactions, ${changes} changes, ${gaps} gaps recorded`,
);
console.log(
  `  ${total(killed)} workers killed: ${
    Object.entries(killed).map(([doing, count]) => `${count} while ${doing}`).join(", ")
  }`,
);
for (const problem of problems) console.log(`WRONG: ${problem}`);
console.log(problems.length === 0 ? "Nothing lost, nothing repeated, every context its own" : "Failed");
process.exit(problems.length === 0 ? 0 : 1);
