import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { splitStatements } from "../src/install/split-statements.ts";
import { onEachServer, type TestDatabase } from "./support/databases.ts";
import { fingerprint } from "./support/fingerprint.ts";
import { createSlot, install, runWorker, SCHEMA, track } from "./support/installation.ts";
import { npmPackages } from "./support/npm-packages.ts";
import { seen, TODOS } from "./support/todos.ts";

const packages = npmPackages("supabase-cli", ["supabase@3.1.0"]);
const bin = fileURLToPath(new URL("../dist/src/cli/bin.js", import.meta.url));

interface Project extends Disposable {
  add(version: string, sql: string): void;
  /** Writes ours, and gives its text. */
  generate(capture: "trigger" | "wal"): string;
  /** `supabase db push`: its exit code and what it says. */
  push(): { readonly status: number | null; readonly output: string };
}

function project({ url = "" }: TestDatabase): Project {
  const folder = mkdtempSync(join(tmpdir(), "bemi-supabase-"));
  const migrations = join(folder, "supabase/migrations");
  mkdirSync(migrations, { recursive: true });
  const run = (command: string, ...args: string[]) =>
    spawnSync(process.execPath, [command, ...args], {
      cwd: folder,
      encoding: "utf8",
      env: {
        PATH: process.env.PATH ?? "",
        HOME: folder,
        DO_NOT_TRACK: "1",
        SUPABASE_TELEMETRY_DISABLED: "1",
      },
    });
  return {
    add: (version, sql) => writeFileSync(join(migrations, `${version}.sql`), sql),
    generate: (capture) => {
      const args = ["generate", "supabase", "todos", "lists", "--capture", capture, "--schema", SCHEMA];
      const { stderr } = run(bin, ...args, "--out", "supabase/migrations");
      expect(stderr).toMatch(/^Wrote supabase\/migrations\/\d{14}_bemi\.sql\n$/);
      return run(bin, ...args).stdout;
    },
    push: () => {
      const cli = packages?.require.resolve("supabase/package.json").replace(
        /package\.json$/,
        "dist/supabase.js",
      );
      const { status, stdout, stderr } = run(
        cli ?? "",
        "db",
        "push",
        `--remote=${url}?sslmode=disable`,
        "--skip-vault",
        "--yes",
      );
      return { status, output: stdout + stderr };
    },
    [Symbol.dispose]: () => rmSync(folder, { recursive: true }),
  };
}

/** Without Supabase's ledger, and numbers that a name has from an OID. */
const catalog = async ({ port }: TestDatabase): Promise<string[]> =>
  (await fingerprint(port)).map((line) => line.replace(/(bemi\w*_reconcile)_\d+/, "$1"))
    .filter((line) => !line.includes("supabase_migrations"));

const THIRD = "alter table todos add note text;\ncomment on table todos is 'with; notes';";

onEachServer("Supabase's command line", (open) => {
  test.skipIf(!packages).each(["trigger", "wal"] as const)(
    "applies and records the generated migration among others, captured by %s",
    { timeout: 120_000 },
    async (capture) => {
      await using by = await open();
      await by.port.execute(TODOS);
      await install(by.db);
      if (capture === "wal") await createSlot(by.db);
      for (const table of ["todos", "lists"]) await track(by.db, table, { capture });
      await by.port.execute(THIRD);

      await using database = await open();
      using own = project(database);
      own.add("20250101000000_first", TODOS);
      const text = own.generate(capture);
      own.add("29990101000000_third", THIRD);
      const { status, output } = own.push();
      expect(status, output).toBe(0);
      expect(await catalog(database)).toEqual(await catalog(by));
      const ledger = await database.port.query<{ name: string; statements: string }>(
        `select name, array_to_string(statements, E';\\n') as statements
        from supabase_migrations.schema_migrations order by version`,
      );
      expect(ledger.map(({ name }) => name)).toEqual(["first", "bemi", "third"]);
      // What a pull writes back of the ledger is the migration.
      expect(splitStatements(ledger[1]?.statements ?? "")).toEqual(splitStatements(text));
      expect(own.push()).toMatchObject({ status: 0, output: expect.stringMatching(/up to date/) });

      if (capture === "wal") await createSlot(database.db);
      await database.port.execute("insert into todos (task, note) values ('Sleep', 'well')");
      if (capture === "wal") await runWorker({ source: database.url, once: true }).finished;
      expect((await seen(database.port)).map(({ operation, after }) => [operation, after.note]))
        .toEqual([["CREATE", "well"]]);
    },
  );

  test.skipIf(!packages)("leaves nothing of one that fails, and the next push does it over", async () => {
    await using database = await open();
    using own = project(database);
    own.generate("trigger");
    const before = await catalog(database);
    expect(own.push().status).toBe(1);
    expect(await catalog(database)).toEqual(before);
    expect(await database.port.query("select from supabase_migrations.schema_migrations")).toEqual([]);
    await database.port.execute(TODOS);
    expect(own.push().status).toBe(0);
    await database.port.execute("insert into todos (task) values ('Sleep')");
    expect(await seen(database.port)).toHaveLength(1);
  });
});
