import { type AddTest, addTests, type Runtime } from "./add-tests.ts";

/** Why each test failed, by its name; `null` where it passed. */
export type Results = Record<string, string | null>;

/** Runs the suite, and what this runtime has besides: no runtime's own test runner is at home in all of them. */
export async function run(runtime: Runtime, own: (test: AddTest) => void = () => {}): Promise<Results> {
  const tests: [name: string, fn: () => Promise<void>][] = [];
  const test: AddTest = (name, fn) => void tests.push([name, fn]);
  addTests(test, runtime);
  own(test);
  const results: Results = {};
  for (const [name, fn] of tests) {
    results[name] = await fn().then(() => null, (error: Error) => error.stack || String(error));
  }
  return results;
}
