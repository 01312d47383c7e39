import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { trackAll } from "../src/install/mod.ts";
import { onEachServer, type TestDatabase } from "./support/databases.ts";
import { start } from "./support/runtimes.ts";
import { freePort } from "./support/servers.ts";
import { seen, TODOS } from "./support/todos.ts";
// @ts-expect-error plain JavaScript, as it runs before anything is built
import { tool } from "./tools/install.mjs";

const root = fileURLToPath(new URL("../", import.meta.url));
const readme = readFileSync(join(root, "README.md"), "utf8");

const { bin } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
  bin: Readonly<Record<"bemi" | "bemi-poll", string>>;
};

/** The code of every block of one language, in order. */
function blocks(language: string): string[] {
  return [...readme.matchAll(/^```(\w*)\n([^]*?)^```/gm)]
    .filter(([, name]) => name === language).map(([, , code = ""]) => code);
}

/** The examples in the docstrings of a source file. */
function examples(file: string): string[] {
  const comments = readFileSync(join(root, "src", file), "utf8").match(/\/\*\*[^]*?\*\//g) ?? [];
  return comments.flatMap((comment) =>
    [...comment.replace(/^ \* ?/gm, "").matchAll(/^```ts\n([^]*?)^```/gm)].map(([, code = ""]) => code)
  );
}

// Within the checkout, so that `@bemi/core` is this package, as it is built.
let folder: string;
beforeAll(() => {
  mkdirSync(join(root, "dist/readme"), { recursive: true });
  folder = mkdtempSync(join(root, "dist/readme/"));
  blocks("ts").forEach((code, n) => writeFileSync(join(folder, `block-${n}.ts`), code));
  for (const file of readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" })) {
    if (!file.endsWith(".ts")) continue;
    examples(file).forEach((code, n) =>
      writeFileSync(join(folder, `example-${file.replace(/[^\w]/g, "-")}-${n}.ts`), code)
    );
  }
  writeFileSync(
    join(folder, "deno.d.ts"),
    "declare namespace Deno { function serve(handler: (request: Request) => Response | Promise<Response>): void }",
  );
  const compilerOptions = {
    noEmit: true,
    noUnusedLocals: false,
    types: ["node", "bun-types"],
    rootDir: root,
  };
  writeFileSync(
    join(folder, "tsconfig.json"),
    JSON.stringify({
      extends: join(root, "tsconfig.json"),
      compilerOptions: { ...compilerOptions, isolatedDeclarations: false, declaration: false },
      include: ["."],
      exclude: [],
    }),
  );
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("every block of TypeScript in the README, and every example of a docstring, type-checks against what is built", () => {
  expect(readdirSync(folder).filter((name) => name.startsWith("example-")).length).toBeGreaterThan(40);
  const { stdout, status } = spawnSync("npx", ["tsc", "-p", folder], { cwd: root, encoding: "utf8" });
  expect(stdout).toBe("");
  expect(status).toBe(0);
});

// What gives another's result as text is seen in that one's.
test("every public function has an example", () => {
  const { exports } = JSON.parse(readFileSync(join(root, "deno.json"), "utf8")) as {
    exports: Readonly<Record<string, string>>;
  };
  const entries = Object.entries(exports).filter(([subpath]) => subpath !== "./cli").map(([, file]) => file);
  const { stdout, status } = spawnSync((tool as (name: string) => string)("deno"), [
    "doc",
    "--json",
    "--quiet",
    ...entries,
  ], { cwd: root, encoding: "utf8", maxBuffer: 2 ** 28 });
  expect(status).toBe(0);
  const { nodes } = JSON.parse(stdout) as { nodes: Readonly<Record<string, { symbols: Symbols[] }>> };
  const functions = Object.values(nodes).flatMap(({ symbols }) => symbols)
    .filter(({ declarations }) => declarations.some(({ kind }) => kind === "function"));
  expect(functions.length).toBeGreaterThan(40);
  const bare = functions.filter(({ declarations }) =>
    !declarations.some(({ jsDoc }) => jsDoc?.tags?.some(({ kind }) => kind === "example"))
  );
  expect(bare.map(({ name }) => name).filter((name) => !/(?:Json|Script)$/.test(name))).toEqual([]);
});

/** What of Deno's documentation is read. */
interface Symbols {
  readonly name: string;
  readonly declarations: readonly {
    readonly kind: string;
    readonly jsDoc?: { readonly tags?: readonly { readonly kind: string }[] };
  }[];
}

/** Runs the lines of a shell block, with psql's work done by the driver, for a machine may have no psql. */
async function shell(code: string, database: TestDatabase, env: Record<string, string>): Promise<string> {
  let output = "";
  for (const line of code.replace(/\s+#.*$/gm, "").split("\n").filter(Boolean)) {
    const [, statement] = /^psql "\$DATABASE_URL" -c "(.*)"$/.exec(line) ?? [];
    const [, command, rest = "", pipe] =
      /^npx (bemi|bemi-poll)((?: [^|]+)*?)( \| psql "\$DATABASE_URL")?$/.exec(line) ?? [];
    const [, runtime, args = ""] = /^(deno|bun)((?: run -A)? dist\/src\/cli\/[^|]+)$/.exec(line) ?? [];
    if (statement) await database.port.execute(statement);
    else if (runtime) {
      const executable = (tool as (name: string) => string)(runtime);
      const options = { cwd: root, encoding: "utf8", env, timeout: 60_000 } as const;
      const { status, stdout, stderr } = spawnSync(executable, args.split(" ").filter(Boolean), options);
      expect(status, `${line}\n${stdout}${stderr}`).toBe(0);
      output += stdout;
    } else if (command) {
      // The file that npx runs. npx itself builds a checkout that it sees for the first time, under the other tests' feet.
      const { status, stdout, stderr } = spawnSync(
        join(root, bin[command as keyof typeof bin]),
        rest.split(" ").filter(Boolean),
        { cwd: root, encoding: "utf8", env, timeout: 60_000 },
      );
      expect(status, `${line}\n${stdout}${stderr}`).toBe(0);
      if (pipe) await database.port.execute(stdout);
      output += stdout;
    } else if (!/^(export DATABASE_URL=|npm )/.test(line)) throw new Error(`The README says: ${line}`);
  }
  return output;
}

const environment = ({ url = "" }: TestDatabase): Record<string, string> => {
  const { hostname, port, pathname } = new URL(url);
  return {
    PATH: process.env.PATH ?? "",
    HOME: process.env.HOME ?? "",
    DATABASE_URL: url,
    PGHOST: hostname,
    PGPORT: port,
    PGUSER: "postgres",
    PGDATABASE: pathname.slice(1),
  };
};

onEachServer("the README", (open) => {
  test("its commands work, in order, and show what they promise", async () => {
    await using database = await open();
    await database.port.execute(`${TODOS} insert into todos (task) values ('Eat')`);
    const outputs: string[] = [];
    try {
      // Where the package is installed: see installed.test.ts.
      const own = blocks("sh").filter((code) => !code.includes("bunx "));
      for (const code of own) outputs.push(await shell(code, database, environment(database)));
    } finally {
      await database.port.execute(`do $$ begin
        if to_regrole('bemi_worker') is not null then
          drop owned by bemi_application, bemi_reader, bemi_worker; drop role bemi_application, bemi_reader, bemi_worker;
        end if; end $$`);
    }
    const [, triggers, wal] = outputs;
    expect(triggers).toMatch(/ 1 +\| todos \| UPDATE .*"task": "Eat well"[^]*\(1 row\)/);
    // The second UPDATE changes nothing, and is not recorded.
    expect(wal).toMatch(/\(1 row\)/);
    for (const sql of blocks("sql")) await database.port.execute(sql);
  });

  // Bun has the package as it is built, Deno its sources, as JSR gives them.
  test.each(
    [
      ["bun", "Bun.serve(", [], (port: string) => ({ PORT: port }), ["DELETE", "/todos/1"]],
      [
        "deno",
        "Deno.serve(",
        ["run", "-A"],
        (port: string) => ({ DENO_SERVE_ADDRESS: `tcp:127.0.0.1:${port}` }),
        ["POST", "/todos"],
      ],
    ] as const,
  )(
    "its server answers under %s, and what it writes has its context",
    async (runtime, call, args, address, asked) => {
      await using database = await open();
      await database.port.execute(TODOS);
      await shell("npx bemi init", database, environment(database));
      await trackAll(database.db);
      await database.port.execute("insert into todos (task) values ('Sleep')");
      const block = blocks("ts").findIndex((code) => code.includes(call));
      const port = String(await freePort());
      await using _server = start({
        command: [(tool as (name: string) => string)(runtime), ...args],
        args: [join(folder, `block-${block}.ts`)],
        env: { ...environment(database), ...address(port) },
        cwd: root,
      });
      const [method, endpoint] = asked;
      const response = await vi.waitFor(
        () =>
          fetch(`http://127.0.0.1:${port}${endpoint}`, {
            method,
            ...(method === "POST" ? { body: "Eat" } : {}),
          }),
        { timeout: 30_000, interval: 200 },
      );
      expect(response.ok).toBe(true);
      const last = (await seen(database.port)).at(-1);
      expect(last).toMatchObject({
        operation: method === "POST" ? "CREATE" : "DELETE",
        context: { method, endpoint },
      });
    },
  );

  test("its examples run, and their changes have their contexts", async () => {
    await using database = await open();
    const { port, db } = database;
    await port.execute(
      `${TODOS} create table jobs (id int generated always as identity primary key, name text, payload jsonb)`,
    );
    await shell("npx bemi init", database, environment(database));
    await trackAll(db);
    await port.execute(
      "insert into lists (title) values ('home'); insert into todos (task, list_id) values ('Sleep', 1)",
    );
    const recipes = blocks("ts").map((code, n) => ({ code, n }))
      .filter(({ code }) => code.includes('from "postgres"') && !/Bun\.|Deno\./.test(code));
    const find = (part: string): string => {
      const found = recipes.filter(({ code }) => code.includes(part));
      expect(found, part).toHaveLength(1);
      return `./block-${found[0]?.n}.ts`;
    };
    writeFileSync(
      join(folder, "run.mts"),
      `import { withContext } from "@bemi/core";
      import "${find("user_id: 42")}";
      import { enqueue, work } from "${find("enqueue")}";
      import schedule from "${find("scheduled")}";
      await withContext({ user_id: 7 }, () => enqueue("complete", { list: 1 }));
      await work({ name: "complete", attempt: 1, payload: { list: 1, context: { user_id: 7 } } });
      await schedule.scheduled({ cron: "0 3 * * *" });
      process.exit(0);`,
    );
    const { status, stderr } = spawnSync(process.execPath, ["--import", "tsx", join(folder, "run.mts")], {
      cwd: root,
      encoding: "utf8",
      env: environment(database),
    });
    expect(status, stderr).toBe(0);
    const told = (await seen(port)).slice(2).map(({ operation, table, after, context }) => {
      const { db: _, SQL: __, ...own } = context;
      return [`${operation} ${table}`, own, (after.payload as { context?: unknown } | undefined)?.context];
    });
    expect(told).toEqual([
      ["CREATE todos", { user_id: 42 }, undefined],
      ["CREATE todos", { user_id: 42 }, undefined],
      ["CREATE jobs", { user_id: 7 }, { user_id: 7 }],
      ["UPDATE todos", { user_id: 7, job: "complete", attempt: 1 }, undefined],
      ["DELETE todos", { job: "cleanup", cron: "0 3 * * *" }, undefined],
    ]);
    // As pg_cron does: several statements in one string.
    await port.execute("insert into todos (task, is_completed) values ('Eat', true)");
    await port.execute(blocks("sql").find((sql) => sql.includes("cleanup")) ?? "");
    expect((await seen(port)).at(-1)).toMatchObject({ operation: "DELETE", context: { job: "cleanup" } });
    expect((await seen(port)).at(-1)?.context).not.toHaveProperty("cron");
  });

  test("its recipes do what they say", async () => {
    await using database = await open();
    const { port } = database;
    await port.execute(`create table lists (id int primary key, title text);
      create table todos (id int primary key, list_id int references lists on delete cascade, task text)`);
    await shell("npx bemi init", database, environment(database));
    await trackAll(database.db);
    const as = (context: object, sql: string): Promise<void> =>
      port.transaction(async (tx) => {
        await tx.query("select set_config('bemi.context', $1, true)", [JSON.stringify(context)]);
        await tx.execute(sql);
      });
    // Whole milliseconds, apart from what is before and after: postgres.js makes a Date of a time.
    const now = async (): Promise<string> => {
      await port.query("select pg_sleep(0.002)");
      const [row] = await port.query<{ now: string }>(
        "select date_trunc('milliseconds', clock_timestamp())::text as now, pg_sleep(0.002)",
      );
      return row?.now ?? "";
    };
    await as(
      { user_id: 1 },
      "insert into lists values (7, 'home'); insert into todos values (42, 7, 'Sleep')",
    );
    const monday = await now();
    await as(
      { user_id: 2, request_id: "4f1c" },
      "update todos set task = 'Eat' where id = 42; insert into todos values (43, 7, 'Rest')",
    );
    const tuesday = await now();
    await as({ user_id: 3 }, "delete from lists where id = 7");
    const block = blocks("ts").findIndex((code) => code.includes("whatSupportSaw"));
    writeFileSync(
      join(folder, "recipes.mts"),
      `import postgres from "postgres";
      import * as recipes from "./block-${block}.ts";
      const sql = postgres();
      const told = {
        who: await recipes.whoChangedIt(sql, "42"),
        saw: await recipes.whatSupportSaw(sql, "${monday}"),
        differs: await recipes.whatDiffers(sql, "${monday}", "${tuesday}"),
      };
      await recipes.restoreList(sql, "7");
      const restored = await sql\`select task from todos order by id\`;
      await recipes.undoRequest(sql, "4f1c").catch((error) => Object.assign(told, { refused: error.code }));
      console.log(JSON.stringify({ ...told, restored, undone: await sql\`select task from todos order by id\` }));
      await sql.end();`,
    );
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      ["--import", "tsx", join(folder, "recipes.mts")],
      { cwd: root, encoding: "utf8", env: environment(database) },
    );
    expect(status, stderr).toBe(0);
    expect(JSON.parse(stdout)).toEqual({
      who: [
        [1, { id: { new: 42 }, list_id: { new: 7 }, task: { new: "Sleep" } }],
        [2, { task: { old: "Sleep", new: "Eat" } }],
        [3, { id: { old: 42 }, list_id: { old: 7 }, task: { old: "Eat" } }],
      ],
      saw: [{ title: "home", task: "Sleep" }],
      differs: [{ id: 42, diff: { task: { old: "Sleep", new: "Eat" } } }, {
        id: 43,
        diff: { id: { new: 43 }, list_id: { new: 7 }, task: { new: "Rest" } },
      }],
      restored: [{ task: "Eat" }, { task: "Rest" }],
      undone: [{ task: "Sleep" }],
    });
  });
});
