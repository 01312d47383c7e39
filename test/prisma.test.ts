import { spawnSync } from "node:child_process";
import { copyFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { onEachServer } from "./support/databases.ts";
import { createSlot, install, runWorker, track } from "./support/installation.ts";
import { npmPackages } from "./support/npm-packages.ts";
import { seen, TODOS } from "./support/todos.ts";

const file = (name: string): string => fileURLToPath(new URL(`prisma/${name}`, import.meta.url));
const packages = npmPackages(
  "prisma",
  ["@bemi-db/prisma@1.1.0", "@prisma/client@6.7.0", "prisma@6.7.0"],
  generate,
);

/** Prisma's engines are not on npm; the query compiler, in WebAssembly, is, and the client needs no other. */
function generate(folder: string): string | undefined {
  const schema = join(folder, "schema.prisma");
  copyFileSync(file("schema.prisma"), schema);
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [join(folder, "node_modules/prisma/build/index.js"), "generate", "--schema", schema],
    {
      cwd: folder,
      encoding: "utf8",
      // Any file in their place keeps it from fetching them.
      env: {
        PATH: process.env.PATH ?? "",
        HOME: process.env.HOME ?? "",
        PRISMA_QUERY_ENGINE_LIBRARY: schema,
        PRISMA_SCHEMA_ENGINE_BINARY: schema,
        CHECKPOINT_DISABLE: "1",
      },
    },
  );
  return status === 0 ? undefined : `its client cannot be generated: ${stdout}${stderr}`;
}

onEachServer("@bemi-db/prisma on Prisma", (open) => {
  test.skipIf(!packages).each(
    [
      ["trigger", false],
      ["wal", false],
      ["wal", true],
    ] as const,
  )(
    "its contexts come with the changes, captured by %s, with injectSqlInContext %s",
    { timeout: 60_000 },
    async (capture, injects) => {
      await using database = await open();
      const { db, port } = database;
      await install(db);
      if (capture === "wal") await createSlot(db);
      await port.execute(TODOS);
      await track(db, "todos", { capture });
      const { status, stderr } = spawnSync(process.execPath, [file("app.cjs")], {
        cwd: packages?.folder,
        encoding: "utf8",
        env: {
          PATH: process.env.PATH ?? "",
          DATABASE_URL: database.url,
          INJECT_SQL: injects ? "1" : "",
        },
      });
      expect(status, stderr).toBe(0);
      if (capture === "wal") await runWorker({ source: database.url, once: true }).finished;
      const changes = await seen(port);
      const told = changes.map(({ operation, key, before, after, context: { db: _, SQL, ...context } }) => {
        expect(SQL).toMatch(/^(INSERT|UPDATE|DELETE) [^]*[^/]$/);
        return [`${operation} ${key}`, after.task ?? before.task, context];
      });
      expect(told.slice(0, 6)).toEqual([
        ["CREATE 1", "Sleep", { userId: 1, email: "zoë@例.com", path: "/a%40b?x=/y" }],
        ["CREATE 2", "Eat", { userId: 2 }],
        ["CREATE 3", 'say "hi"', { userId: 2 }],
        ["UPDATE 1", "Sleep", { userId: 3, step: "late" }],
        ["UPDATE 2", "Eat", { userId: 4 }],
        ["DELETE 3", 'say "hi"', { userId: 5 }],
      ]);
      // Overlapping requests, in any order.
      expect(told.slice(6).map(([, task, context]) => [task, context]).sort()).toEqual([
        ["of 6", { userId: 6 }],
        ["of 7", { userId: 7 }],
        ["of 8", { userId: 8 }],
        ["of nobody", {}],
      ]);
    },
  );
});
