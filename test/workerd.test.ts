import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { PollResult } from "../src/worker/mod.ts";
import { onEachServer } from "./support/databases.ts";
import { createSlot, install, SCHEMA, track } from "./support/installation.ts";
import { seen } from "./support/todos.ts";
// @ts-expect-error plain JavaScript, as it runs before anything is built
import { installTools } from "./tools/install.mjs";

interface MiniflareLike {
  dispatchFetch(url: string, init?: object): Promise<Response>;
  getWorker(): Promise<{ scheduled(options: object): Promise<{ outcome: string }> }>;
  dispose(): Promise<void>;
}

const require = createRequire(new URL("tools/package.json", import.meta.url));

/** The Worker as its tools bundle it. */
async function bundle(entry: string): Promise<string> {
  const esbuild = require("esbuild") as {
    build(options: object): Promise<{ outputFiles: { text: string }[] }>;
  };
  const { outputFiles } = await esbuild.build({
    entryPoints: [fileURLToPath(new URL(entry, import.meta.url))],
    bundle: true,
    write: false,
    format: "esm",
    platform: "neutral",
    mainFields: ["workerd", "module", "main"],
    conditions: ["workerd", "worker", "import"],
    external: ["node:*", "cloudflare:*"],
  });
  return outputFiles[0]?.text ?? "";
}

let script: string;
beforeAll(async () => {
  (installTools as () => void)();
  script = await bundle("runtimes/cron-worker.mjs");
});

let worker: MiniflareLike | undefined;
afterAll(() => worker?.dispose());

async function start(bindings: Record<string, string>): Promise<MiniflareLike> {
  const { Miniflare } = require("miniflare") as { Miniflare: new (options: object) => MiniflareLike };
  await worker?.dispose();
  worker = new Miniflare({
    modules: true,
    script,
    compatibilityDate: "2026-04-01",
    compatibilityFlags: ["nodejs_compat"],
    bindings,
  });
  return worker;
}

onEachServer("Cloudflare's workerd", (open) => {
  test("requests write with their contexts, and a cron brings them into the log", async () => {
    await using database = await open();
    const { db, port, url } = database;
    await install(db);
    await createSlot(db);
    await port.execute(
      "create table todos (id int generated always as identity primary key, task text, user_id text)",
    );
    await track(db, "todos", { capture: "wal" });
    const miniflare = await start({ DATABASE_URL: url, SCHEMA });

    const users = Array.from({ length: 8 }, (_, i) => String(i + 1));
    const responses = await Promise.all(
      users.map((user) =>
        miniflare.dispatchFetch(`http://localhost/todo/${user}`, { headers: { "x-user": user } })
      ),
    );
    expect(await Promise.all(responses.map((response) => response.text()))).toEqual(
      users.map(() => "written"),
    );
    // More than one fetch of a cursor, and more than one chunk of a COPY.
    await port.execute("insert into todos (task) select repeat('x', 500) from generate_series(1, 3000)");
    expect(await (await miniflare.getWorker()).scheduled({ cron: "* * * * *" })).toMatchObject({
      outcome: "ok",
    });
    const results = await (await miniflare.dispatchFetch("http://localhost/results")).json() as PollResult[];
    expect(results).toHaveLength(2);
    expect(results.some(({ isCaughtUp }) => isCaughtUp)).toBe(true);

    const changes = await seen(port);
    const told = changes.filter(({ after }) => after.user_id != null).map(({ operation, after, context }) => [
      operation,
      after.user_id,
      context.user_id,
      context.endpoint,
    ]);
    expect(told.sort()).toEqual(users.map((user) => ["CREATE", user, Number(user), `/todo/${user}`]));
    expect(changes.filter(({ after }) => after.task === "Sleep")).toHaveLength(8);
    for (const { after, context } of changes) {
      if (after.task === "Sleep") expect(context.endpoint).toBe(`/todo/${String(context.user_id)}`);
    }
    expect(changes.filter(({ after }) => String(after.task).startsWith("xxx"))).toHaveLength(3000);
    expect(results.reduce((sum, { written }) => sum + written, 0)).toBe(changes.length);
  });
});
