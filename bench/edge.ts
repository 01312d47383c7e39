import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { coreBundleBytes } from "../test/support/core-bundle.ts";
import { PROCESS_RUNTIMES, runToEnd } from "../test/support/runtimes.ts";
import { startWorkerd } from "../test/support/workerd.ts";
import { median, tell } from "./measure.ts";

const core = fileURLToPath(new URL("../dist/mod.js", import.meta.url));
const REQUESTS = 200_000;
const ROUNDS = 5;

/** What requests do, for so many of them: with a context each, and without. */
const LOOPS = `
export async function contexts(times, withContext) {
  for (let i = 0; i < times; i++) await withContext({ user_id: i, endpoint: "/todos" }, () => i);
}
export async function bare(times) {
  const handle = async (context, fn) => await fn(context);
  for (let i = 0; i < times; i++) await handle({ user_id: i, endpoint: "/todos" }, () => i);
}`;

/** What the core costs at the edge: bytes, milliseconds to import it, microseconds of each request. */
export async function edge(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "bemi-edge-"));
  try {
    writeFileSync(join(folder, "package.json"), '{ "type": "module" }');
    writeFileSync(join(folder, "loops.js"), LOOPS);
    const bytes = await coreBundleBytes();
    console.log(`\nThe core entry: ${bytes.toLocaleString("en")} bytes, minified and compressed`);
    tell("At the edge", "core entry, minified and compressed", `${bytes.toLocaleString("en")} bytes`);
    const main = join(folder, "main.js");
    writeFileSync(main, processScript());
    console.log("Import of the core, and what withContext adds to a request (medians)");
    for (const { name, command } of PROCESS_RUNTIMES) {
      const found = command();
      if (!found) continue;
      const runs = Array.from(
        { length: ROUNDS },
        () =>
          JSON.parse(runToEnd({ command: found, args: [main], cwd: folder })) as {
            imported: number;
            added: number;
          },
      );
      const imported = median(runs.map((run) => run.imported));
      const added = median(runs.map((run) => run.added));
      print(name, added, `, ${imported.toFixed(1)} ms to import`);
    }
    print("workerd", await inWorkerd(folder));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function print(runtime: string, added: number, imported = ""): void {
  const figures = `${added.toFixed(2)} µs per request${imported}`;
  console.log(`  ${figures}  ${runtime}`);
  tell("At the edge", `withContext, ${runtime}`, figures);
}

const processScript = (): string => `
import { bare, contexts } from "./loops.js";
const began = performance.now();
const { withContext } = await import(${JSON.stringify(pathToFileURL(core).href)});
const imported = performance.now() - began;
await bare(${REQUESTS});
await contexts(${REQUESTS}, withContext);
const time = async (run) => {
  const start = performance.now();
  await run();
  return performance.now() - start;
};
const without = await time(() => bare(${REQUESTS}));
const within = await time(() => contexts(${REQUESTS}, withContext));
console.log(JSON.stringify({ imported, added: (within - without) / ${REQUESTS} * 1000 }));`;

/** A Worker's own clock stands still while it computes, so the time is taken outside. */
async function inWorkerd(folder: string): Promise<number> {
  const entry = join(folder, "worker.js");
  writeFileSync(
    entry,
    `import { withContext } from ${JSON.stringify(core)};
import { bare, contexts } from "./loops.js";
export default { fetch: async ({ url }) => {
  await (url.endsWith("contexts") ? contexts(${REQUESTS}, withContext) : bare(${REQUESTS}));
  return new Response("done");
} };`,
  );
  await using worker = await startWorkerd(entry, {});
  const time = async (path: string): Promise<number> => {
    const start = performance.now();
    await (await worker.fetch(path)).text();
    return performance.now() - start;
  };
  await time("/bare");
  await time("/contexts");
  const added: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const without = await time("/bare");
    added.push((await time("/contexts") - without) / REQUESTS * 1000);
  }
  return median(added);
}
