import { spawnSync } from "node:child_process";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { beforeAll, expect, test } from "vitest";
// @ts-expect-error plain JavaScript, as it runs before anything is built
import { installTools, tool } from "./tools/install.mjs";
import { EXPECTED } from "./runtimes/isolation.js";

const folder = fileURLToPath(new URL("runtimes/", import.meta.url));

beforeAll(() => {
  (installTools as () => void)();
});

test.each([
  ["Node", () => [process.execPath, "main.mjs"]],
  ["Deno", () => [(tool as (name: string) => string)("deno"), "run", "--no-config", "-A", "main.mjs"]],
  ["Bun", () => [(tool as (name: string) => string)("bun"), "main.mjs"]],
])("%s keeps two concurrent contexts apart", (_name, command) => {
  const [executable = "", ...args] = command();
  const { stdout, stderr } = spawnSync(executable, args, { cwd: folder, encoding: "utf8" });
  expect(stdout.trim(), stderr).toBe(EXPECTED);
});

test("Bun.serve's fetch and routes run in the context of their request, and websockets pass through", () => {
  const bun = (tool as (name: string) => string)("bun");
  const { stdout, stderr } = spawnSync(bun, ["bun-serve.mjs"], { cwd: folder, encoding: "utf8" });
  expect(stdout.trim().split("\n"), stderr).toEqual([
    "static",
    '{"request_id":"r2","user_id":2,"params":{"id":"7"}}',
    '{"request_id":"r3","user_id":3,"params":{}}',
    '{"request_id":"r4","user_id":4}',
    '{"job":"import"}',
  ]);
});

test("workerd keeps two concurrent contexts apart", async () => {
  const require = createRequire(new URL("tools/package.json", import.meta.url));
  const { Miniflare } = require("miniflare") as {
    Miniflare: new (
      options: object,
    ) => { dispatchFetch(url: string): Promise<Response>; dispose(): Promise<void> };
  };
  const worker = new Miniflare({
    modules: true,
    modulesRoot: fileURLToPath(new URL("../", import.meta.url)),
    modulesRules: [{ type: "ESModule", include: ["**/*.js", "**/*.mjs"] }],
    scriptPath: `${folder}worker.mjs`,
    compatibilityDate: "2026-04-01",
    compatibilityFlags: ["nodejs_als"],
  });
  try {
    const response = await worker.dispatchFetch("http://localhost/");
    expect(await response.text()).toBe(EXPECTED);
  } finally {
    await worker.dispose();
  }
});
