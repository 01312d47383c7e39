import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import type { Results } from "./runtimes/run.ts";
import { onEachServer, type TestDatabase } from "./support/databases.ts";
import { SCHEMA } from "./support/installation.ts";
import { type PackedProject, packedProject } from "./support/packed.ts";
import { PROCESS_RUNTIMES, runToEnd, start } from "./support/runtimes.ts";
import { suiteNames } from "./support/suite-names.ts";
import { seen } from "./support/todos.ts";
import { startWorkerd } from "./support/workerd.ts";

let project: PackedProject;
beforeAll(() => {
  project = packedProject();
});
afterAll(() => project?.[Symbol.dispose]());

onEachServer("the packed package", (open) => {
  describe.each(PROCESS_RUNTIMES)("under $name", ({ name: runtime, entry, command }) => {
    const found = command();
    let database: TestDatabase & { url: string };
    let results: Results = {};
    beforeAll(async () => {
      if (!found) return;
      database = await open();
      const args = [`runtimes/${entry}.js`, database.url, SCHEMA];
      results = JSON.parse(runToEnd({ command: found, args, cwd: project.folder })) as Results;
    }, 160_000);
    afterAll(() => database?.[Symbol.asyncDispose]());

    test.skipIf(!found).each(suiteNames(runtime))("%s", (name) => {
      expect(results[name]).toBeNull();
    });

    test.skipIf(!found)("bemi-poll streams, and ends well by SIGTERM", async () => {
      if (!found) return;
      await using running = start({
        command: found,
        args: ["node_modules/@bemi/core/dist/src/cli/bin-poll.js", "--schema", SCHEMA, "--mode", "stream"],
        env: { DATABASE_URL: database.url },
        cwd: project.folder,
      });
      await running.printed(/"mode":"stream"/);
      await database.port.execute("insert into notes values (99999, 'by bemi-poll')");
      await vi.waitFor(async () => {
        expect((await seen(database.port)).at(-1)?.after.text).toBe("by bemi-poll");
      }, { timeout: 20_000 });
      expect(await running.terminate()).toBe(0);
    });
  });

  describe("in workerd", () => {
    let results: Results = {};
    beforeAll(async () => {
      await using database = await open();
      const entry = join(project.folder, "runtimes/workerd.js");
      await using worker = await startWorkerd(entry, { URL: database.url, SCHEMA });
      const response = await worker.fetch("/");
      const text = await response.text();
      if (!response.ok) throw new Error(text);
      results = JSON.parse(text) as Results;
    }, 160_000);

    test.each(suiteNames("Workers"))("%s", (name) => {
      expect(results[name]).toBeNull();
    });
  });
});
