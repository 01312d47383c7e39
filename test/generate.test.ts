import { spawnSync } from "node:child_process";
import {
  existsSync,
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
import { fileURLToPath } from "node:url";
import { afterAll, expect, test } from "vitest";
import { migration } from "../src/install/mod.ts";
import { splitStatements } from "../src/install/split-statements.ts";
import { onEachDatabase, onEachServer, type TestDatabase } from "./support/databases.ts";
import { fingerprint } from "./support/fingerprint.ts";
import { createSlot, install, SCHEMA, track } from "./support/installation.ts";
import { npmPackages } from "./support/npm-packages.ts";
import { story, TODOS } from "./support/todos.ts";

const root = fileURLToPath(new URL("../", import.meta.url));
const tools = npmPackages("drizzle", ["drizzle-orm@0.45.4", "drizzle-kit@0.31.11", "pg@8.23.1"]);
const scratch = mkdtempSync(join(tmpdir(), "bemi-generate-"));
afterAll(() => rmSync(scratch, { recursive: true }));

let count = 0;
function generated(args: readonly string[]): { folder: string; text: string } {
  const folder = join(scratch, String(++count));
  const command = (more: readonly string[]) =>
    spawnSync(process.execPath, ["dist/src/cli/bin.js", "generate", ...args, "--schema", SCHEMA, ...more], {
      cwd: root,
      encoding: "utf8",
      env: { PATH: process.env.PATH ?? "" },
    });
  const printed = command([]);
  expect(printed.status, printed.stderr).toBe(0);
  const written = command(["--out", folder]);
  expect(written.status, written.stderr).toBe(0);
  const file = /^Wrote (.*)$/m.exec(written.stderr)?.[1] ?? "";
  expect(readFileSync(file, "utf8")).toBe(printed.stdout);
  expect(file.slice(folder.length + 1)).toMatch(
    { prisma: /^\d{14}_bemi\/migration\.sql$/, drizzle: /^0000_bemi\.sql$/ }[args[0] ?? ""] ??
      /^\d{14}_bemi\.sql$/,
  );
  return { folder, text: printed.stdout };
}

/** What the database holds, but for numbers that a name has from an OID. */
const catalog = async ({ port }: TestDatabase): Promise<string[]> =>
  (await fingerprint(port)).map((line) => line.replace(/(bemi\w*_reconcile)_\d+/, "$1"))
    .filter((line) => !line.includes("drizzle"));

const CAPTURES = ["trigger", "wal"] as const;

async function reference(database: TestDatabase, capture: typeof CAPTURES[number]): Promise<string[]> {
  await database.port.execute(TODOS);
  await install(database.db);
  if (capture === "wal") await createSlot(database.db);
  for (const table of ["todos", "lists"]) await track(database.db, table, { capture });
  return await catalog(database);
}

onEachServer("a generated migration", (open) => {
  test.each(
    (["sql", "prisma", "supabase"] as const).flatMap((kind) =>
      CAPTURES.map((capture) => [kind, capture] as const)
    ),
  )(
    "for %s leaves what install and track leave, captured by %s, run whole or statement by statement",
    async (kind, capture) => {
      await using by = await open();
      const expected = await reference(by, capture);
      const { text } = generated([kind, "todos", "lists", "--capture", capture]);
      // As one simple query, as Prisma does; one by one, as psql and Supabase's command line do.
      for (const pieces of [[text], splitStatements(text)]) {
        await using database = await open();
        await database.port.execute(TODOS);
        const sql = database.connect({ max: 1 });
        for (const piece of pieces) await sql.unsafe(piece);
        expect(await catalog(database)).toEqual(expected);
        const slots = await database.port.query(
          "select from pg_replication_slots where database = current_database()",
        );
        expect(slots).toHaveLength(kind === "sql" && capture === "wal" ? 1 : 0);
        await sql`insert into todos (task) values ('Sleep')`;
        if (capture === "trigger") expect(await story(database.port)).toEqual(["CREATE todos 1"]);
      }
    },
  );

  test.skipIf(!tools).each(CAPTURES)(
    "for drizzle runs through drizzle-kit, among its own migrations, captured by %s",
    { timeout: 180_000 },
    async (capture) => {
      await using by = await open();
      const expected = await reference(by, capture);
      await using database = await open();
      const folder = mkdtempSync(join(scratch, "drizzle-"));
      symlinkSync(join(tools?.folder ?? "", "node_modules"), join(folder, "node_modules"));
      writeFileSync(
        join(folder, "drizzle.config.json"),
        JSON.stringify({
          dialect: "postgresql",
          schema: "./schema.js",
          out: "./drizzle",
          dbCredentials: { url: database.url },
        }),
      );
      const schema = (more: string): void =>
        writeFileSync(
          join(folder, "schema.js"),
          `import { bigint, boolean, pgTable, text } from "drizzle-orm/pg-core";
          const id = () => bigint("id", { mode: "bigint" }).primaryKey().generatedByDefaultAsIdentity();
          export const lists = pgTable("lists", { id: id(), title: text("title").notNull() });
          export const todos = pgTable("todos", { id: id(), task: text("task").notNull(), is_completed: boolean("is_completed").notNull().default(false),
            list_id: bigint("list_id", { mode: "bigint" }).references(() => lists.id, { onDelete: "cascade" }) }); ${more}`,
        );
      const kit = (...args: string[]): string => {
        const { status, stdout, stderr } = spawnSync(process.execPath, [
          "node_modules/drizzle-kit/bin.cjs",
          ...args,
        ], { cwd: folder, encoding: "utf8" });
        expect(status, stdout + stderr).toBe(0);
        return stdout;
      };
      schema("");
      kit("generate", "--name", "first");
      const written = spawnSync(
        process.execPath,
        [
          join(root, "dist/src/cli/bin.js"),
          "generate",
          "drizzle",
          "todos",
          "lists",
          "--capture",
          capture,
          "--schema",
          SCHEMA,
          "--out",
          "drizzle",
        ],
        { cwd: folder, encoding: "utf8" },
      );
      expect(written.stderr).toBe("Wrote drizzle/0001_bemi.sql\n");
      expect(kit("generate")).toMatch(/No schema changes/);
      schema(`export const notes = pgTable("notes", { id: id() });`);
      kit("generate", "--name", "third");
      // In one transaction, all three.
      kit("migrate");
      expect(readdirSync(join(folder, "drizzle"))).toEqual(
        expect.arrayContaining(["0000_first.sql", "0001_bemi.sql", "0002_third.sql"]),
      );
      await database.port.execute("drop table notes");
      const constraint = (line: string): string =>
        line.replaceAll("todos_list_id_lists_id_fk", "todos_list_id_fkey");
      expect((await catalog(database)).map(constraint)).toEqual(expected);
      await database.port.execute("insert into todos (task) values ('Sleep')");
      if (capture === "trigger") expect(await story(database.port)).toEqual(["CREATE todos 1"]);
    },
  );
});

onEachDatabase("a generated migration", (open) => {
  test("for drizzle runs one statement at a time, in one transaction, and leaves its settings as they were", async () => {
    await using by = await open();
    const expected = await reference(by, "trigger");
    await using database = await open();
    const { folder, text } = generated(["drizzle", "todos", "lists"]);
    expect(existsSync(join(folder, "meta/_journal.json"))).toBe(true);
    const statements = text.split("--> statement-breakpoint");
    expect(statements.length).toBeGreaterThan(100);
    await database.port.transaction(async (tx) => {
      await tx.execute(TODOS);
      const settings = () =>
        tx.query(
          "select current_setting('search_path') as path, current_setting('client_min_messages') as messages",
        );
      const before = await settings();
      // With parameters, so that each goes by the extended protocol, which takes one statement.
      for (const statement of statements) await tx.query(statement, []);
      expect(await settings()).toEqual(before);
    });
    expect(await catalog(database)).toEqual(expected);
  });

  test("with --all tracks what is there and what comes", async () => {
    await using database = await open();
    await database.port.execute(TODOS);
    await database.port.transaction((tx) =>
      tx.execute(migration("drizzle", { tables: "all", schema: SCHEMA }))
    );
    await database.port.execute("create table notes (id int primary key); insert into notes values (1)");
    expect(await story(database.port)).toEqual(["CREATE notes 1"]);
  });
});

test("a migration comes after those that are there, also of the same second or of a clock that is ahead", () => {
  const folder = join(scratch, "ahead");
  mkdirSync(join(folder, "29991231235959_first"), { recursive: true });
  for (const name of ["29991231235960_bemi", "29991231235961_bemi"]) {
    const { stderr } = spawnSync(
      process.execPath,
      ["dist/src/cli/bin.js", "generate", "prisma", "--out", folder],
      { cwd: root, encoding: "utf8" },
    );
    expect(stderr).toBe(`Wrote ${join(folder, name, "migration.sql")}\n`);
  }
});

test("a migration is not written over another, nor where no folder can be", () => {
  const folder = join(scratch, "drizzle-1");
  mkdirSync(join(folder, "20260101000000_first"), { recursive: true });
  const bemi = (out: string) =>
    spawnSync(process.execPath, ["dist/src/cli/bin.js", "generate", "drizzle", "--out", out], {
      cwd: root,
      encoding: "utf8",
    });
  // drizzle-kit from 1.0 on has a folder for each.
  expect(bemi(folder).stderr).toMatch(/Wrote .*\/\d{14}_bemi\/migration\.sql\n/);
  writeFileSync(join(scratch, "file"), "");
  expect(bemi(join(scratch, "file"))).toMatchObject({ status: 2, stderr: expect.stringMatching(/--out/) });
});

test("statements end where SQL ends them", () => {
  expect(
    splitStatements(
      `-- a; b\nselect ';', "x;y", $$;$$, $a$ $$;$$ $a$, e'\\';', 1 / 2 /* ; */ - 1;\n\nselect 2 -- end`,
    ),
  ).toEqual([
    `-- a; b\nselect ';', "x;y", $$;$$, $a$ $$;$$ $a$, e'\\';', 1 / 2 /* ; */ - 1`,
    "select 2 -- end",
  ]);
});
