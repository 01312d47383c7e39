import { type AddTest, addTests } from "../runtimes/add-tests.ts";
import { expressTests } from "../runtimes/express.ts";

/** The names of the shared suite's tests in one runtime, so that none can be left out where it runs. */
export function suiteNames(runtime: string): string[] {
  const names: string[] = [];
  const test: AddTest = (name) => void names.push(name);
  const never = () => Promise.reject(new Error("Nothing runs here"));
  const isProcess = runtime !== "Workers";
  addTests(test, {
    url: "",
    schema: "",
    serve: never,
    streams: isProcess,
    ...(isProcess ? { pglite: never } : {}),
  });
  if (isProcess) expressTests(test);
  // Of runtimes/bun-serve.ts, which only Bun can load.
  if (runtime === "Bun") names.push("Bun.serve's fetch and routes have their request's context");
  return names;
}
