import process from "node:process";
import { describe, expect, inject, test } from "vitest";
import { report } from "./differential/report.ts";
import { oneServer } from "./differential/servers.ts";
import { openRunner, scenarioAt } from "./differential/world.ts";

const SEED = Number(process.env.DIFFERENTIAL_SEED ?? 1);
const SCENARIOS = 12;

// The short form of npm run test:differential.
describe.each([
  { name: "PGlite", url: undefined },
  ...inject("servers").map(({ version, url }) => ({ name: `PostgreSQL ${version}`, url })),
])("every path of capture on $name", ({ url }) => {
  test(`tells the same of ${SCENARIOS} scenarios (seed ${SEED})`, { timeout: 300_000 }, async () => {
    await using runner = openRunner(url === undefined ? undefined : oneServer(url), "UTF8");
    const outcomes = await runner.run(Array.from({ length: SCENARIOS }, (_, n) => scenarioAt(SEED, n)));
    expect(outcomes.filter((outcome) => outcome.differences.length > 0).map(report)).toEqual([]);
    // That they do something.
    expect(outcomes.flatMap((outcome) => outcome.results).filter((result) => result === "ok").length)
      .toBeGreaterThan(SCENARIOS * 10);
  });
});
