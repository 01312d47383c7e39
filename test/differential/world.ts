import fc from "fast-check";
import type { LaneTemplate } from "./lane.ts";
import { pgliteTemplate } from "./pglite-lane.ts";
import { type Outcome, runBatch, type World } from "./run.ts";
import { type Scenario, scenario } from "./scenario.ts";
import { serverTemplate } from "./server-lane.ts";
import type { Servers } from "./servers.ts";

/** Where scenarios run: in databases that are made anew when many have run in them, or a worker in them has died. */
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

const PATHS = ["plain", "trigger", "poll", "stream"] as const;

/** Scenarios that share databases. They fill the catalog, and what follows DDL costs the more, the more tables there are. */
const WORLD_SIZE = 12;

/** @param servers `undefined` for PGlite */
export function openRunner(servers: Servers | undefined, encoding: string): Runner {
  let templates: Promise<LaneTemplate[]> | undefined;
  let world: Promise<World> | undefined;
  let used = 0;
  const open = async (): Promise<World> => {
    templates ??= Promise.all(
      servers
        ? PATHS.map((name) => serverTemplate({ name, server: servers[name], encoding }))
        : PATHS.slice(0, 2).map(pgliteTemplate),
    );
    return await Promise.all((await templates).map((template) => template.open()));
  };
  const close = async (): Promise<void> => {
    const lanes = await world;
    world = undefined;
    used = 0;
    await Promise.all((lanes ?? []).map((lane) => lane[Symbol.asyncDispose]()));
  };
  const run = async (scenarios: readonly Scenario[]): Promise<Outcome[]> => {
    if (used + scenarios.length > WORLD_SIZE) await close();
    used += scenarios.length;
    try {
      return await runBatch(await (world ??= open()), scenarios);
    } catch (error) {
      await close();
      const half = scenarios.length >> 1;
      if (half > 0) return [...await run(scenarios.slice(0, half)), ...await run(scenarios.slice(half))];
      return scenarios.map((one) => ({
        scenario: one,
        statements: [],
        results: [],
        differences: [String((error as Error).stack ?? error)],
      }));
    }
  };
  return {
    run,
    [Symbol.asyncDispose]: async () => {
      await close();
      for (const template of await templates ?? []) await template[Symbol.asyncDispose]();
    },
  };
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
