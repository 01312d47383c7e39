import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { main } from "../src/cli/main.ts";
import type { Io } from "../src/cli/io.ts";
import { VERSION } from "../src/cli/version.ts";
import { onEachServer, type TestDatabase } from "./support/databases.ts";
import { fingerprint } from "./support/fingerprint.ts";
import { startServer } from "./support/servers.ts";

const root = fileURLToPath(new URL("../", import.meta.url));
const bin = "dist/src/cli/bin.js";

interface Ran {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the built command line; none of what it says may be a stack trace. */
function bemi(args: readonly string[], env: Record<string, string> = {}): Ran {
  const { status, stdout, stderr } = spawnSync(process.execPath, [bin, ...args], {
    cwd: root,
    encoding: "utf8",
    env: { PATH: process.env.PATH ?? "", ...env },
    timeout: 60_000,
  });
  expect(stderr).not.toMatch(/^\s+at .*:\d+:\d+/m);
  return { status, stdout, stderr };
}

/** The same within this process, on a terminal of one's own. */
async function onTerminal(args: readonly string[], env: Io["env"], terminal: Partial<Io> = {}): Promise<Ran> {
  let [stdout, stderr] = ["", ""];
  const status = await main(args, {
    env,
    out: (text) => void (stdout += text),
    err: (text) => void (stderr += text),
    columns: 200,
    isColoured: true,
    progress: undefined,
    onTerminate: () => {},
    ...terminal,
  });
  return { status, stdout, stderr };
}

const parsed = (lines: string): unknown[] =>
  lines.split("\n").slice(0, -1).map((line) => JSON.parse(line) as unknown);

test("every command has help with examples, on stdout, asked for in any way, and is in the README's table", () => {
  const readme = readFileSync(`${root}README.md`, "utf8");
  const help = bemi(["--help"]);
  const names = [...help.stdout.matchAll(/^ {2}([a-z][a-z-]+) .*$/gm)].map((match) => match[1] ?? "")
    .filter((name) => name !== "help");
  expect(names.length).toBeGreaterThan(10);
  for (const name of names) {
    const { status, stdout, stderr } = bemi([name, "--help"]);
    expect([name, status, stderr, /^Examples?:\n {2}bemi /m.test(stdout)]).toEqual([name, 0, "", true]);
    expect(readme).toMatch(new RegExp(`^\\| .*\`bemi ${name}\\b.*\\|$`, "m"));
  }
  expect(bemi(["help"])).toEqual(help);
  expect(bemi(["help", "changes"])).toEqual(bemi(["changes", "--help"]));
  expect(bemi(["--version"])).toEqual({ status: 0, stdout: `${VERSION}\n`, stderr: "" });
});

test.each([
  ["PGPORT", { PGHOST: "127.0.0.1", PGPORT: "abc" }],
  ["DB_PORT", { DB_HOST: "127.0.0.1", DB_PORT: "99999" }],
])("%s that is no port is named, and exits 2", (name, env) => {
  expect(bemi(["status"], env)).toMatchObject({
    status: 2,
    stderr: expect.stringContaining(`${name} is no port`),
  });
});

test.each([
  ["postgres://app:50%@127.0.0.1/app", /is no PostgreSQL URL\n {2}[^\n]*%25 for %/],
  ["postgres://app:a/b@127.0.0.1/app", /is no PostgreSQL URL\n {2}[^\n]*%2F for \//],
  ["mysql://app@127.0.0.1/app", /is no PostgreSQL URL/],
  ["127.0.0.1/app", /is no PostgreSQL URL/],
  ["postgres:///app?host=/run/postgresql", /has "host" as a parameter[^]*\n {2}[^\n]*set PGHOST/],
  ["postgres://127.0.0.1/app?sslmode=maybe", /sslmode is none that there is\n {2}Say disable/],
])("%s is answered with how it is written, and exits 2", (url, said) => {
  expect(bemi(["status", "--database-url", url])).toEqual({
    status: 2,
    stdout: "",
    stderr: expect.stringMatching(said),
  });
  expect(bemi(["status"], { DATABASE_URL: url }).status).toBe(2);
});

test("what cannot name a change, a transaction or a slot is refused before anything is connected to", () => {
  const env = { DATABASE_URL: "postgres://127.0.0.1:1/app" };
  for (
    const [args, said] of [
      [["revert", "--change", "42"], "Write the id of a change, a UUID"],
      [["revert", "--transaction", "4f1c"], "Write the transaction_id of a change, or a key"],
      [["revert", "--transaction", "1:0"], "Write the transaction_id of a change, or a key"],
    ] as const
  ) {
    expect(bemi(args, env)).toEqual({ status: 2, stdout: "", stderr: expect.stringContaining(said) });
  }
  for (const transaction of ["8231", "1/8231", "1/0/1F2CAE0", "1:0/1F2CAE0", "-1:16/B374D848"]) {
    expect(bemi(["revert", `--transaction=${transaction}`], env).status).toBe(3);
  }
});

test.each([
  [{}, "--database-url or DATABASE_URL"],
  [
    { PGHOST: "127.0.0.1", PGPORT: "1", DB_HOST: "db", DB_NAME: "app" },
    "--database-url or PGHOST, PGPORT, which put DB_HOST, DB_NAME aside",
  ],
  [{ DB_HOST: "127.0.0.1", DB_PORT: "1" }, "--database-url or DB_HOST, DB_PORT"],
])("where nothing listens, the variables that say where are named: %j", (env, named) => {
  const url = "DB_HOST" in env ? [] : ["--database-url", "postgres://127.0.0.1:1/app"];
  expect(bemi(["status", ...url], env)).toEqual({
    status: 3,
    stdout: "",
    stderr: `bemi: Cannot connect to the database: nothing listens there\n  Check ${named}.\n`,
  });
});

test("a worker whose server cannot be reached says in words why it tries again", async () => {
  const { status, stderr } = await onTerminal(["worker", "--once"], {
    DATABASE_URL: "postgres://127.0.0.1:1/app",
  });
  const lines = stderr.split("\n").filter((line) => line.startsWith("{"));
  expect(JSON.parse(lines[0] ?? "")).toMatchObject({
    msg: "Trying again",
    code: "ECONNREFUSED",
    reason: "nothing listens there",
  });
  expect([status, stderr]).toEqual([
    3,
    expect.stringContaining("Cannot connect to the database: nothing listens"),
  ]);
});

test("a proxy without a server behind it, which hangs up, is no reason to call for ever", async () => {
  const proxy = createServer((socket) => void socket.on("data", () => socket.end()).on("error", () => {}));
  await new Promise<void>((done) => proxy.listen(0, "127.0.0.1", done));
  try {
    const url = `postgres://app:s3cret@127.0.0.1:${(proxy.address() as AddressInfo).port}/app`;
    for (const args of [["status"], ["worker", "--once"]]) {
      const child = spawn(process.execPath, [bin, ...args, "--database-url", url], {
        cwd: root,
        timeout: 60_000,
      });
      let said = "";
      child.stderr.on("data", (chunk: Uint8Array) => said += chunk.toString());
      expect(await once(child, "exit")).toEqual([3, null]);
      expect(said).toMatch(/Cannot connect to the database: the connection closed\n {2}Check --database-url/);
      expect(said).not.toContain("s3cret");
    }
  } finally {
    proxy.close();
  }
});

test("init on a server that does not decode its WAL leaves nothing behind", async () => {
  const server = await startServer("18", ["fsync=off", "wal_level=replica"]);
  try {
    const env = { DATABASE_URL: server.url() };
    const { status, stderr } = bemi(["init", "--all", "--capture", "wal"], env);
    expect([status, stderr]).toEqual([
      1,
      expect.stringMatching(/wal_level is "replica"[^]*alter system set wal_level/),
    ]);
    expect(bemi(["status"], env).status).toBe(4);
  } finally {
    await server.remove();
  }
});

const tables = (database: TestDatabase): Promise<void> =>
  database.port.execute(`create table todos (id int primary key, task text); create schema app;
    create table app.lists (id int primary key); create table "Odd" (id int primary key)`);

onEachServer("the command line, used wrongly", (open) => {
  test("names that are nearly right are answered with the right ones, and nothing is installed for them", async () => {
    await using database = await open();
    await tables(database);
    const env = { DATABASE_URL: database.url };
    const before = await fingerprint(database.port);
    for (
      const [args, hint] of [
        [["init", "todso"], "Did you mean todos?"],
        [["init", "todos", "lists", "--capture", "wal"], "Did you mean app.lists?"],
        [["init", "odd"], 'Did you mean "Odd"?'],
        [["init", "entirely_else"], "  Write it as in SQL"],
      ] as const
    ) {
      const { status, stdout, stderr } = bemi(args, env);
      expect([status, stdout, stderr]).toEqual([2, "", expect.stringContaining(hint)]);
    }
    expect(await fingerprint(database.port)).toEqual(before);

    bemi(["init", "--all"], env);
    for (
      const [table, hint] of [
        ["todso", "Did you mean todos?"],
        ["TODOS", "Did you mean todos?"],
        ['"todos"', "Did you mean todos?"],
        ["app.list", "Did you mean app.lists?"],
        ["entirely_else", "bemi status lists what is tracked"],
      ] as const
    ) {
      const { status, stdout, stderr } = bemi(["changes", table], env);
      expect([status, stdout, stderr]).toEqual([2, "", expect.stringContaining(hint)]);
    }
    expect(bemi(["changes", "todos"], env)).toMatchObject({
      status: 0,
      stdout: expect.stringContaining("(0 rows)"),
    });
    // What is gone from the database is still known to the log.
    await database.port.execute("insert into todos values (1); drop table todos");
    expect(bemi(["changes", "todos", "2"], env).status).toBe(0);
    expect(bemi(["changes", "--since", "2026-11-01 25:00:00"], env)).toMatchObject({
      status: 2,
      stderr: expect.stringContaining("Write a time such as"),
    });
    for (
      const [args, said] of [
        [
          ["track", "app.lists", "--mask", "di"],
          /no column di\n {2}Name columns exactly[^\n]*: id\.\n$/,
        ],
        [["track", "pg_class"], /as it is a system catalog\n {2}What can be tracked are tables/],
        [["init", "bemi.changes"], /as it belongs to the log itself\n {2}What can be tracked are tables/],
        [
          ["track", "app.lists", "--mask", "id"],
          /Cannot mask the primary key of app\.lists[^\n]*\n {2}Mask other/,
        ],
      ] as const
    ) {
      expect(bemi(args, env)).toEqual({ status: 1, stdout: "", stderr: expect.stringMatching(said) });
    }
    expect(bemi(["untrack", "app.lists"], env).stderr).toBe("No longer tracking app.lists\n");
    expect(bemi(["untrack", "app.lists"], env)).toMatchObject({
      status: 0,
      stderr: "app.lists was not tracked\n",
    });
  });

  test("one of several hosts is enough, as libpq takes them", async () => {
    await using database = await open();
    bemi(["init"], { DATABASE_URL: database.url });
    const { host } = new URL(database.url);
    const url = database.url.replace(host, `127.0.0.1:1,${host}`);
    expect(bemi(["status", "--json", "--database-url", url])).toMatchObject({ status: 0, stderr: "" });
    expect(bemi(["init", "--capture", "wal", "--database-url", url]).status).toBe(0);
    expect(bemi(["worker", "--once", "--database-url", url]).status).toBe(0);
    expect(bemi(["status", "--database-url", `${database.url}?sslmod=require`])).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/does not know a name[^\n]*42704[^\n]*\n {2}If the URL has parameters/),
    });
  });

  test("a role without rights is told what has them, by every command", async () => {
    await using database = await open();
    await tables(database);
    bemi(["init", "todos"], { DATABASE_URL: database.url });
    const before = await fingerprint(database.port);
    await database.port.execute("create role bemi_stranger login");
    try {
      const env = { DATABASE_URL: database.url.replace("postgres@", "bemi_stranger@") };
      for (
        const args of [
          ["status"],
          ["doctor"],
          ["changes"],
          ["changes", "todos", "--json"],
          ["track", "todos"],
          ["track", "todos", "--baseline"],
          ["untrack", "todos"],
          ["migrate"],
          ["maintain"],
          ["init", "--all"],
          ["worker", "--once"],
          ["uninstall", "--yes"],
        ]
      ) {
        const { status, stdout, stderr } = bemi(args, env);
        expect([args, status, stdout]).toEqual([args, 1, ""]);
        expect(stderr).toMatch(/^bemi: This role [^\n]+\n {2}(?:Run this as|It needs|Connect as)/);
      }
    } finally {
      await database.port.execute("drop role bemi_stranger");
    }
    expect(await fingerprint(database.port)).toEqual(before);
  });

  test("init repeated keeps how tables are captured, and says what it would change", async () => {
    await using database = await open();
    await tables(database);
    const env = { DATABASE_URL: database.url };
    const captures = (): unknown =>
      (JSON.parse(bemi(["status", "--json"], env).stdout) as { tables: { table: string; capture: string }[] })
        .tables.map(({ table, capture }) => `${table} ${capture}`).sort();
    bemi(["init", "--all", "--capture", "wal"], env);
    await database.port.execute("create unlogged table fleeting (id int primary key)");
    for (const args of [["init"], ["init", "--all"], ["init", "todos"]]) {
      expect(bemi(args, env)).toMatchObject({
        status: 0,
        stderr: expect.stringContaining("bemi worker --once"),
      });
      expect(captures()).toEqual(["Odd wal", "fleeting trigger", "lists wal", "todos wal"]);
    }
    expect(bemi(["init", "todos", "--capture", "trigger", "--dry-run"], env).stdout).toBe(
      "track public.todos by triggers from now on\n",
    );
    bemi(["init", "todos", "--capture", "trigger"], env);
    for (const args of [["init"], ["migrate"]]) {
      expect(bemi(args, env).stderr).toMatch(/^Schema "bemi" is up to date \(version \d+\)\n/);
    }
    expect(captures()).toContain("todos trigger");
  });

  test("init gives up on a table that stays locked, says so, and has tracked the others", async () => {
    await using database = await open();
    await database.port.execute("create table a (id int primary key); create table b (id int primary key)");
    const held = await database.connect({ max: 1 }).reserve();
    await held.unsafe("begin; lock table b in access exclusive mode");
    const env = { PATH: process.env.PATH ?? "", DATABASE_URL: database.url };
    const init = spawn(process.execPath, [bin, "init", "a", "b"], { cwd: root, env });
    let said = "";
    init.stderr.on("data", (chunk: Uint8Array) => said += chunk.toString());
    expect(await once(init, "exit")).toEqual([1, null]);
    expect(said).toMatch(
      /Tracking public\.a\nbemi: public\.b stayed locked by other sessions\n {2}Try again when/,
    );
    await held.unsafe("rollback");
    held.release();
    expect(bemi(["init", "a", "b"], env).status).toBe(0);
  });
});

onEachServer("what the command line prints", (open) => {
  test("is one JSON object a line for every command that reads, and nothing else on stdout", async () => {
    await using database = await open();
    await tables(database);
    const env = { DATABASE_URL: database.url };
    bemi(["init", "--all", "--capture", "wal"], env);
    await database.port.execute("insert into todos values (1, E'two\\nlines\\u2028'), (2, 'x')");
    bemi(["worker", "--once"], env);
    await database.port.execute("update bemi.settings set partitions_ahead = 5");
    for (
      const [args, least] of [[["changes"], 2], [["status"], 1], [["doctor"], 1], [["maintain"], 1]] as const
    ) {
      const { status, stdout } = bemi([...args, "--json"], env);
      expect([args, status]).toEqual([args, 0]);
      expect(parsed(stdout).length).toBeGreaterThanOrEqual(least);
      expect(stdout).not.toContain("\u001b");
    }
  });

  test("is coloured on a terminal, and nowhere else", async () => {
    await using database = await open();
    await tables(database);
    const env = { DATABASE_URL: database.url };
    bemi(["init", "todos"], env);
    await database.port.execute("drop view changes");
    expect((await onTerminal(["doctor"], env)).stdout).toContain("\u001b[33mwarning\u001b[39m view-missing");
    expect((await onTerminal(["doctor"], env, { isColoured: false })).stdout).toMatch(
      /^warning view-missing/m,
    );
    // A pipe, whatever the environment asks of other programs.
    expect(bemi(["doctor"], { ...env, FORCE_COLOR: "1", TERM: "xterm-256color" }).stdout).not.toContain(
      "\u001b",
    );
  });

  test("is a line of progress on a terminal while the worker works: rate, lag, and what is left", async () => {
    await using database = await open();
    await tables(database);
    const env = { DATABASE_URL: database.url };
    bemi(["init", "--all", "--capture", "wal"], env);
    await database.port.execute("insert into todos select n from generate_series(1, 1234) n");
    const lines: string[] = [];
    const { status, stderr } = await onTerminal(["worker", "--once"], env, {
      progress: (line) => void lines.push(line),
    });
    expect([status, stderr]).toEqual([0, expect.stringContaining('"msg":"Stopped"')]);
    expect(lines.filter((line) => line !== "")).toEqual(
      expect.arrayContaining([
        expect.stringMatching(/^1,234 changes, [\d,]+\/s, \d+\.\d MB and \d+\.\d s behind/),
      ]),
    );
    // What is logged below takes the line away first.
    expect(lines.at(-1)).toBe("");
    expect(stderr).not.toContain("Changes written");
  });
});
