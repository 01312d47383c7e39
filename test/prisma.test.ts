import { spawnSync } from "node:child_process";
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { onEachServer } from "./support/databases.ts";
import { createSlot, install, runWorker, SCHEMA, track } from "./support/installation.ts";
import { expectIsolated } from "./support/isolation.ts";
import { clock } from "./support/moments.ts";
import { npmPackages } from "./support/npm-packages.ts";
import { OUTCOME } from "./support/requests.ts";
import { runToEnd, start } from "./support/runtimes.ts";
import { seen, TODOS } from "./support/todos.ts";

const file = (name: string): string => fileURLToPath(new URL(`prisma/${name}`, import.meta.url));
const packages = npmPackages(
  "prisma",
  ["@bemi-db/prisma@1.1.0", "@prisma/client@6.7.0", "prisma@6.7.0"],
  (folder) => generate(folder, "schema.prisma"),
);
const current = npmPackages(
  "prisma",
  ["@prisma/adapter-pg@6.19.3", "@prisma/client@6.19.3", "prisma@6.19.3"],
  (folder) => generate(folder, "client.prisma"),
);

function cli(folder: string): string {
  return join(folder, "node_modules/prisma/build/index.js");
}

/** Prisma's engines are not on npm; those in WebAssembly are. Any file in the others' place keeps it from fetching them. */
function environment(folder: string): Record<string, string> {
  const instead = join(folder, "package.json");
  return {
    PATH: process.env.PATH ?? "",
    HOME: process.env.HOME ?? "",
    PRISMA_QUERY_ENGINE_LIBRARY: instead,
    PRISMA_SCHEMA_ENGINE_BINARY: instead,
    CHECKPOINT_DISABLE: "1",
  };
}

/** Prisma's command line in a folder that has its packages. */
function prisma(folder: string, args: readonly string[], env: Record<string, string> = {}) {
  return spawnSync(process.execPath, [cli(folder), ...args], {
    cwd: folder,
    encoding: "utf8",
    env: { ...environment(folder), ...env },
  });
}

function generate(folder: string, name: string): string | undefined {
  const schema = join(folder, "schema.prisma");
  copyFileSync(file(name), schema);
  const { status, stdout, stderr } = prisma(folder, ["generate", "--schema", schema]);
  return status === 0 ? undefined : `its client cannot be generated: ${stdout}${stderr}`;
}

onEachServer("Prisma's driver adapter over a wrapped pg Pool", (open) => {
  test.skipIf(!current)("every write carries its own request's context", async () => {
    await using database = await open();
    await install(database.db);
    await database.port.execute(TODOS);
    await track(database.db, "todos");
    const output = runToEnd({
      command: [process.execPath, "--import", "tsx"],
      args: ["prisma/adapter.ts", current?.folder ?? "", database.url],
      cwd: fileURLToPath(new URL(".", import.meta.url)),
    });
    expect(output.trim()).toBe(OUTCOME);
    await expectIsolated(database);
  });
});

onEachServer("Prisma in the past", (open) => {
  test.skipIf(!current)("reads what was, by the schema of the adapter, and writes nothing", async () => {
    await using database = await open();
    const { db, port, url } = database;
    await install(db);
    await port.execute(TODOS);
    await track(db, "todos");
    await port.execute("insert into todos (task) values ('Sleep'), ('Eat')");
    const time = await clock(port);
    await port.execute(
      "update todos set is_completed = true where id = 1; insert into todos (task) values ('Rest')",
    );
    const output = runToEnd({
      command: [process.execPath, "--import", "tsx"],
      args: ["prisma/past.ts", current?.folder ?? "", url, time, SCHEMA],
      cwd: fileURLToPath(new URL(".", import.meta.url)),
    });
    expect(JSON.parse(output)).toEqual({ now: ["Eat", "Rest"], then: ["Sleep", "Eat"], refused: true });
  });
});

interface Project extends Disposable {
  /** Prisma's `migrate …`, which has to succeed; gives what it prints. */
  migrate(...args: string[]): string;
  /** Prisma's `migrate dev …`, until it has said that; its process may stay for a minute after its last word. */
  develop(said: RegExp, ...args: string[]): Promise<void>;
  /** Writes a migration by hand. */
  add(name: string, sql: string): void;
  /** Writes ours. */
  generate(capture: "trigger" | "wal"): void;
  /** Gives todos a column in the schema. */
  changeSchema(): void;
  migrations(): string[];
}

function project(url: string): Project {
  const folder = mkdtempSync(join(tmpdir(), "bemi-prisma-"));
  symlinkSync(join(current?.folder ?? "", "node_modules"), join(folder, "node_modules"));
  writeFileSync(join(folder, "package.json"), "{}");
  mkdirSync(join(folder, "prisma"));
  copyFileSync(file("prisma.config.mjs"), join(folder, "prisma.config.mjs"));
  const schema = join(folder, "prisma/schema.prisma");
  copyFileSync(file("client.prisma"), schema);
  return {
    migrate: (...args) => {
      const { status, stdout, stderr } = prisma(folder, ["migrate", ...args], { DATABASE_URL: url });
      expect(status, stdout + stderr).toBe(0);
      return stdout;
    },
    develop: async (said, ...args) => {
      await using running = start({
        command: [process.execPath],
        args: [cli(folder), "migrate", "dev", "--skip-generate", ...args],
        env: { ...environment(folder), DATABASE_URL: url },
        cwd: folder,
      });
      await running.printed(said);
    },
    add: (name, sql) => {
      mkdirSync(join(folder, "prisma/migrations", name), { recursive: true });
      writeFileSync(join(folder, "prisma/migrations", name, "migration.sql"), sql);
    },
    generate: (capture) => {
      const bin = fileURLToPath(new URL("../dist/src/cli/bin.js", import.meta.url));
      const options = ["--capture", capture, "--schema", SCHEMA, "--out", "prisma/migrations"];
      const args = [bin, "generate", "prisma", "todos", ...options];
      const { stderr } = spawnSync(process.execPath, args, { cwd: folder, encoding: "utf8" });
      expect(stderr).toMatch(/^Wrote prisma\/migrations\/\d{14}_bemi\/migration\.sql\n$/);
    },
    changeSchema: () => {
      const text = readFileSync(schema, "utf8");
      writeFileSync(schema, text.replace("model Todo {", "model Todo {\n  note String?"));
    },
    migrations: () => readdirSync(join(folder, "prisma/migrations")).filter((name) => /^\d/.test(name)),
    [Symbol.dispose]: () => rmSync(folder, { recursive: true }),
  };
}

onEachServer("Prisma's migrations", (open) => {
  test.skipIf(!current)("apply the generated one among their own", { timeout: 120_000 }, async () => {
    await using database = await open();
    using own = project(database.url);
    const model = ["--from-empty", "--to-schema-datamodel", "prisma/schema.prisma", "--script"];
    own.add("20250101000000_first", own.migrate("diff", ...model));
    own.generate("trigger");
    own.add("29990101000000_third", "alter table todos add note text;");
    expect(own.migrate("deploy")).toMatch(/\d{14}_bemi\/[^]*29990101000000_third\/[^]*successfully applied/);
    expect(own.migrate("deploy")).toMatch(/No pending migrations/);
    expect(own.migrate("status")).toMatch(/3 migrations found[^]*up to date/);
    await database.port.execute("insert into todos (task, note) values ('Sleep', 'well')");
    expect((await seen(database.port)).map(({ operation, after }) => [operation, after.note]))
      .toEqual([["CREATE", "well"]]);
  });

  test.skipIf(!current)(
    "are developed on top of the generated one, which a shadow database replays without drift",
    { timeout: 240_000 },
    async () => {
      await using database = await open();
      using own = project(database.url);
      await own.develop(/_first[^]*now in sync/, "--name", "first");
      own.generate("wal");
      own.migrate("deploy");
      await own.develop(/Already in sync/);
      own.changeSchema();
      await own.develop(/_third[^]*now in sync/, "--name", "third");
      expect(own.migrations().map((name) => name.slice(15))).toEqual(["first", "bemi", "third"]);
      await createSlot(database.db);
      await database.port.execute("insert into todos (task, note) values ('Sleep', 'well')");
      await runWorker({ source: database.url, once: true }).finished;
      expect((await seen(database.port)).map(({ operation, after }) => [operation, after.note]))
        .toEqual([["CREATE", "well"]]);
    },
  );
});

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
