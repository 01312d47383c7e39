// npm run test:differential -- --runs 2000 --server 14,15,16,17,18 --seed 1
// Goes on where a run of the same seed was stopped; --fresh begins again, --only N runs one scenario and shows it,
// --bail ends with the first batch in which something differs.
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { report } from "./report.ts";
import { startServers } from "./servers.ts";
import { encodingOf, ENCODINGS, openRunner, type Runner, scenarioAt, shrink } from "./world.ts";

const { values } = parseArgs({
  options: {
    runs: { type: "string", default: "200" },
    server: { type: "string", default: "18" },
    seed: { type: "string", default: String(Date.now() % 100_000) },
    batch: { type: "string", default: "12" },
    only: { type: "string" },
    fresh: { type: "boolean", default: false },
    state: { type: "string" },
    bail: { type: "boolean", default: false },
    "shrink-seconds": { type: "string", default: "120" },
  },
});
const seed = Number(values.seed);
const runs = Number(values.runs);
const state = values.state ?? join(tmpdir(), `bemi-differential-${seed}.json`);

/** By server and encoding: the next scenario; and which failed. */
interface Progress {
  readonly next: Record<string, number>;
  readonly failed: Record<string, number[]>;
}
const progress: Progress = existsSync(state) && !values.fresh && values.only === undefined
  ? JSON.parse(readFileSync(state, "utf8")) as Progress
  : { next: {}, failed: {} };

const examine = async (runner: Runner, indexes: readonly number[], name: string): Promise<void> => {
  const outcomes = await runner.run(indexes.map((n) => scenarioAt(seed, n)));
  for (const [i, outcome] of outcomes.entries()) {
    if (outcome.differences.length === 0) {
      if (values.only !== undefined) console.log(report(outcome));
      continue;
    }
    const n = indexes[i] ?? 0;
    (progress.failed[name] ??= []).push(n);
    console.log(`\nScenario ${n} of seed ${seed} on ${name}:`);
    const milliseconds = Number(values["shrink-seconds"]) * 1000;
    const smallest = milliseconds > 0 ? await shrink(runner, { seed, n, milliseconds }) : undefined;
    console.log(report(smallest ?? outcome));
  }
};

const start = Date.now();
let done = 0;
console.log(`${runs} scenarios each on ${values.server}, seed ${seed}, state in ${state}`);
// Databases are made and dropped all the time, which takes a disk longer than all that is done in them.
if (existsSync("/dev/shm")) process.env.TEST_DATA_FOLDER ??= "/dev/shm";
const isOver = (): boolean => values.bail && Object.keys(progress.failed).length > 0;
for (const version of values.server.split(",")) {
  await using servers = version === "pglite" ? undefined : await startServers(version);
  for (const encoding of servers ? ENCODINGS : ENCODINGS.slice(0, 1)) {
    const name = `${version} ${encoding}`;
    await using runner = openRunner(servers, encoding);
    const all = values.only === undefined ? Array.from({ length: runs }, (_, n) => n) : [Number(values.only)];
    const indexes = all.filter((n) => !servers || encodingOf(n) === encoding)
      .filter((n) => values.only !== undefined || n >= (progress.next[name] ?? 0));
    for (let at = 0; at < indexes.length && !isOver(); at += Number(values.batch)) {
      const batch = indexes.slice(at, at + Number(values.batch));
      await examine(runner, batch, name);
      done += batch.length;
      progress.next[name] = (batch.at(-1) ?? 0) + 1;
      if (values.only === undefined) writeFileSync(state, JSON.stringify(progress));
      const each = (Date.now() - start) / done;
      const left = Math.round(each * (indexes.length - at - batch.length) / 60_000);
      if (at / Number(values.batch) % 8 === 0) {
        console.error(
          `${name}: ${at + batch.length} of ${indexes.length}, ${
            Math.round(each)
          } ms each, about ${left} min to go`,
        );
      }
    }
  }
}
const failures = Object.entries(progress.failed).filter(([, list]) => list.length > 0);
console.log(
  `\n${done} scenarios in ${Math.round((Date.now() - start) / 1000)} s, ${
    Math.round((Date.now() - start) / Math.max(1, done))
  } ms each`,
);
for (const [name, list] of failures) console.log(`FAILED on ${name}: ${list.join(", ")}`);
if (failures.length === 0) console.log("No difference");
process.exit(failures.length === 0 ? 0 : 1);
