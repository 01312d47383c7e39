import { spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { onEachServer, type TestDatabase } from "./support/databases.ts";
import { install, track } from "./support/installation.ts";
import { expectedChanges, expectIsolated } from "./support/isolation.ts";
import { OUTCOME } from "./support/requests.ts";
import { TODOS } from "./support/todos.ts";
// @ts-expect-error plain JavaScript, as it runs before anything is built
import { tool } from "./tools/install.mjs";

const root = fileURLToPath(new URL("../", import.meta.url));

/** The clients that the README's table names for Node, Deno and Bun. */
const CLIENTS = ["postgres.js", "pg", "drizzle on pg", "drizzle on postgres.js", "kysely on pg"];

function run(command: string, args: string[], cwd: string): string {
  const { status, stdout, stderr } = spawnSync(command, args, { cwd, encoding: "utf8" });
  expect(status, `${command} ${args.join(" ")}\n${stdout}${stderr}`).toBe(0);
  return stdout;
}

// Within the checkout for its node_modules, but with the package as it is packed.
let folder: string;
beforeAll(() => {
  mkdirSync(join(root, ".cache/consumer"), { recursive: true });
  folder = mkdtempSync(join(root, ".cache/consumer/"));
  const packed = run("npm", ["pack", "--ignore-scripts", "--pack-destination", folder], root).trim().split(
    "\n",
  ).at(-1);
  const installed = join(folder, "node_modules/@bemi/core");
  mkdirSync(installed, { recursive: true });
  run("tar", ["-xzf", packed ?? "", "-C", installed, "--strip-components=1"], folder);
  copyFileSync(join(root, "test/runtimes/consumer/main.ts"), join(folder, "main.ts"));
  copyFileSync(join(root, "test/support/requests.ts"), join(folder, "requests.ts"));
  writeFileSync(join(folder, "package.json"), JSON.stringify({ private: true, type: "module" }));
  const compilerOptions = {
    target: "ES2022",
    lib: ["ES2023", "DOM", "DOM.Iterable", "ESNext.Disposable"],
    module: "NodeNext",
    types: ["node"],
    strict: true,
    exactOptionalPropertyTypes: true,
    // Not all of the drivers' own declarations hold.
    skipLibCheck: true,
  };
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["main.ts"] }));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const find = tool as (name: string) => string;
const RUNTIMES: [string, () => [string, ...string[]]][] = [
  ["Node", () => [process.execPath]],
  ["Deno", () => [find("deno"), "run", "--no-config", "--node-modules-dir=manual", "-A"]],
  ["Bun", () => [find("bun")]],
];

onEachServer("the packed package", (open) => {
  const prepare = async (): Promise<TestDatabase & { url: string }> => {
    const database = await open();
    await install(database.db);
    await database.port.execute(TODOS);
    await track(database.db, "todos");
    return database;
  };

  test("type-checks in a project of its own", () => {
    run("npx", ["tsc", "-p", folder], root);
  });

  test.each(RUNTIMES)(
    "keeps overlapping requests apart under %s, through every client",
    // Five databases, and a PGlite.
    { timeout: 300_000 },
    async (_, command) => {
      const named: Record<string, TestDatabase & { url: string }> = {};
      for (const name of CLIENTS) named[name] = await prepare();
      const urls = Object.fromEntries(Object.entries(named).map(([name, { url }]) => [name, url]));
      const [executable, ...args] = command();
      const results = JSON.parse(
        run(executable, [...args, "main.js", JSON.stringify(urls)], folder),
      ) as Record<
        string,
        unknown
      >;
      for (const [name, database] of Object.entries(named)) {
        expect([name, results[name]]).toEqual([name, OUTCOME]);
        await expectIsolated(database);
      }
      expect((results.PGlite as string[]).sort()).toEqual(expectedChanges());
      expect(results.middleware).toEqual(Array.from({ length: 4 }, () => ({ method: "GET" })));
      expect(results.imports).toEqual(["function", "function", "function"]);
      for (const database of Object.values(named)) await database[Symbol.asyncDispose]();
    },
  );
});
