import fc from "fast-check";
import { openLane, openPgliteLane } from "./lane.ts";
import { type Outcome, runBatch, type World } from "./run.ts";
import { type Scenario, scenario } from "./scenario.ts";

/** Where scenarios run: a world that is made anew when a worker in it has died. */
export interface Runner extends AsyncDisposable {
  run(scenarios: readonly Scenario[]): Promise<Outcome[]>;
}

/** The n-th scenario of a seed: each has a seed of its own, so that a run can begin anywhere. */
export function scenarioAt(seed: number, n: number): Scenario {
  const [made] = fc.sample(scenario, { seed: seedAt(seed, n), numRuns: 1 });
  if (!made) throw new Error("fast-check made no scenario");
  return made;
}

/** The encodings of databases; most scenarios run in the first. */
export const ENCODINGS = ["UTF8", "LATIN1", "SQL_ASCII"] as const;

export function encodingOf(n: number): (typeof ENCODINGS)[number] {
  return n % 10 === 8 ? "LATIN1" : n % 10 === 9 ? "SQL_ASCII" : "UTF8";
}

function seedAt(seed: number, n: number): number {
  return Math.imul(seed, 1_000_003) + n | 0;
}

/** @param server the URL of a server, without a database; `undefined` for PGlite */
export function openRunner(server: string | undefined, encoding: string): Runner {
  let opened: Promise<World> | undefined;
  const open = (): Promise<World> =>
    server === undefined ? Promise.all((["plain", "trigger"] as const).map(openPgliteLane)) : Promise.all(
      (["plain", "trigger", "poll", "stream"] as const).map((name) => openLane({ name, server, encoding })),
    );
  const close = async (): Promise<void> => {
    const world = await opened;
    opened = undefined;
    for (const lane of world ?? []) await lane[Symbol.asyncDispose]();
  };
  const run = async (scenarios: readonly Scenario[]): Promise<Outcome[]> => {
    try {
      return await runBatch(await (opened ??= open()), scenarios);
    } catch (error) {
      await close();
      if (scenarios.length === 1) {
        return scenarios.map((one) => ({
          scenario: one,
          statements: [],
          results: [],
          differences: [String((error as Error).stack ?? error)],
        }));
      }
      const outcomes: Outcome[] = [];
      for (const one of scenarios) outcomes.push(...await run([one]));
      return outcomes;
    }
  };
  return { run, [Symbol.asyncDispose]: close };
}

/** The smallest scenario found that fails like that of a seed. */
export async function shrink(
  runner: Runner,
  { seed, n, milliseconds }: { seed: number; n: number; milliseconds: number },
): Promise<Outcome | undefined> {
  let smallest: Outcome | undefined;
  await fc.check(
    fc.asyncProperty(scenario, async (one) => {
      const [outcome] = await runner.run([one]);
      if (!outcome || outcome.differences.length === 0) return true;
      smallest = outcome;
      return false;
    }),
    { seed: seedAt(seed, n), numRuns: 1, interruptAfterTimeLimit: milliseconds },
  );
  return smallest;
}
