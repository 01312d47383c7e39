import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { onEachServer, type TestDatabase } from "./support/databases.ts";
import { install, track } from "./support/installation.ts";
import { type PackedProject, packedProject } from "./support/packed.ts";
import { PROCESS_RUNTIMES, start } from "./support/runtimes.ts";
import { seen, TODOS } from "./support/todos.ts";
import { startWorkerd } from "./support/workerd.ts";

const VARIANTS = ["bare", "with"] as const;

const lines = async (variant: typeof VARIANTS[number], runtime: string): Promise<string[]> => {
  const file = new URL(`./runtimes/hono/${variant}/${runtime}.ts`, import.meta.url);
  return (await readFile(file, "utf8")).trimEnd().split("\n");
};

test.each(["node", "deno", "bun", "workers"])(
  "an application of Hono's for %s is five lines longer with Bemi, and wraps its client",
  async (runtime) => {
    const [bare, withBemi] = [await lines("bare", runtime), await lines("with", runtime)];
    expect(withBemi.length - bare.length).toBe(5);
    const rest = withBemi.map((line) => line.replace(/withBemi\((postgres\(.*\))\);$/, "$1;"));
    const more = rest.filter((line) => !bare.includes(line));
    expect(more).toHaveLength(5);
    expect(rest.filter((line) => !more.includes(line))).toEqual(bare);
  },
);

let project: PackedProject;
beforeAll(() => {
  project = packedProject();
});
afterAll(() => project?.[Symbol.dispose]());

onEachServer("that application", (open) => {
  const prepare = async (): ReturnType<typeof open> => {
    const database = await open();
    await install(database.db);
    await database.port.execute(TODOS);
    await track(database.db, "todos");
    return database;
  };
  const request = { method: "POST", headers: { "x-user-id": "7" }, body: "Sleep" };
  const told = async ({ port }: TestDatabase): Promise<unknown[]> =>
    (await seen(port)).map(({ operation, after, context }) => [operation, after.task, context.user_id]);

  describe.each(PROCESS_RUNTIMES)("under $name", ({ entry, command }) => {
    const found = command();
    test.skipIf(!found).each(VARIANTS)(
      "answers, and with Bemi its changes say whose: %s",
      async (variant) => {
        await using database = await prepare();
        const { hostname, port, pathname, username } = new URL(database.url);
        await using running = start({
          command: found ?? ["never"],
          args: [`runtimes/hono/${variant}/${entry}.js`],
          env: { PGHOST: hostname, PGPORT: port, PGDATABASE: pathname.slice(1), PGUSER: username },
          cwd: project.folder,
        });
        const [, listening] = await running.printed(/^(\d+)$/m);
        const response = await fetch(`http://127.0.0.1:${listening}/todos`, request);
        expect([response.status, await response.text()]).toEqual([201, "created"]);
        expect(await told(database)).toEqual([["CREATE", "Sleep", variant === "with" ? "7" : undefined]]);
      },
    );
  });

  test.each(VARIANTS)("answers in workerd, and with Bemi its changes say whose: %s", async (variant) => {
    await using database = await prepare();
    const entry = join(project.folder, `runtimes/hono/${variant}/workers.js`);
    await using worker = await startWorkerd(entry, { DATABASE_URL: database.url });
    const response = await worker.fetch("/todos", request);
    expect([response.status, await response.text()]).toEqual([201, "created"]);
    expect(await told(database)).toEqual([["CREATE", "Sleep", variant === "with" ? "7" : undefined]]);
  });
});
