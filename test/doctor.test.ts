import postgres from "postgres";
import { expect, test, vi } from "vitest";
import { main } from "../src/cli/main.ts";
import {
  doctor,
  type Finding,
  install,
  reconcile,
  SCHEMA_VERSION,
  seal,
  track,
  trackAll,
} from "../src/install/mod.ts";
import { createSlot, runWorker } from "../src/worker/mod.ts";
import { onEachDatabase, onEachServer, type TestDatabase } from "./support/databases.ts";
import { startServer } from "./support/servers.ts";
import { seen, TODOS } from "./support/todos.ts";

interface Sabotage {
  readonly title: string;
  /** What doctor has to call it. */
  readonly name: string;
  readonly sql: string | ((database: TestDatabase) => string);
  /** Needs what PGlite does not have. */
  readonly realOnly?: true;
  /** The oldest server on which it can be done. */
  readonly since?: number;
}

/** Quietly: as it happens where the event trigger could not see it. */
const unseen = (sql: string): string => `select set_config('bemi.reconciling', 'on', true); ${sql}`;

const SABOTAGES: readonly Sabotage[] = [
  {
    title: "a trigger is dropped",
    name: "trigger-missing",
    sql: unseen('drop trigger "!bemi_update" on lists'),
  },
  {
    title: "a trigger is disabled",
    name: "trigger-disabled",
    sql: unseen('alter table lists disable trigger "!bemi_insert"'),
  },
  {
    title: "all triggers are disabled",
    name: "trigger-disabled",
    sql: unseen("alter table todos disable trigger all"),
  },
  {
    title: "a trigger fires only outside replication",
    name: "trigger-disabled",
    sql: unseen('alter table lists enable trigger "!bemi_delete"'),
  },
  {
    title: "the application adds a row trigger",
    name: "trigger-outdated",
    sql: unseen(
      `create function touch() returns trigger language plpgsql as 'begin return null; end';
      create trigger touch after insert on lists for each row execute function touch()`,
    ),
  },
  {
    title: "a partition is added",
    name: "partition-untracked",
    sql: unseen("create table days_2027 partition of days for values from (2027) to (2028)"),
  },
  {
    title: "a table is added",
    name: "table-untracked",
    sql: unseen("create table tags (name text primary key)"),
  },
  { title: "a table is dropped", name: "table-gone", sql: unseen("drop table notes") },
  {
    title: "another column takes the masked one's place",
    name: "mask-without-column",
    sql: "alter table people drop column password; alter table people add password_hash text",
  },
  {
    title: "another Bemi's triggers are there",
    name: "other-bemi",
    sql:
      `create function _bemi_row_trigger_func() returns trigger language plpgsql as 'begin return null; end';
      create trigger _bemi_row_trigger_people after insert on people for each row execute function _bemi_row_trigger_func()`,
  },
  {
    title: "the event trigger is dropped",
    name: "event-trigger",
    sql: (d) => `drop event trigger ${eventTrigger.get(d)}`,
  },
  {
    title: "the event trigger is disabled",
    name: "event-trigger",
    sql: (d) => `alter event trigger ${eventTrigger.get(d)} disable`,
  },
  {
    title: "somebody wrote a cast to json before",
    name: "foreign-cast",
    realOnly: true,
    sql:
      `create type kind as enum (); create function kind_json(kind) returns json language sql as $$ select '1'::json $$;
      create cast (kind as json) with function kind_json(kind); alter function kind_json owner to pg_database_owner`,
  },
  {
    title: "the event trigger that refuses casts is dropped",
    name: "event-trigger",
    sql: (d) => `drop event trigger ${eventTrigger.get(d)}_cast`,
  },
  {
    title: "the database sets a context for everybody",
    name: "setting",
    realOnly: true,
    sql: (d) => `alter database ${nameOf(d)} set bemi.context = '{"user_id": 1}'`,
  },
  {
    title: "a role skips triggers by habit",
    name: "setting",
    realOnly: true,
    sql: (d) => `alter role postgres in database ${nameOf(d)} set session_replication_role = replica`,
  },
  {
    title: "rows wait in the default partition",
    name: "default-partition",
    sql:
      `insert into bemi.changes select (jsonb_populate_record(c, '{"committed_at": "2031-01-01T00:00:00Z"}')).* from bemi.changes c limit 1`,
  },
  {
    title: "nobody makes partitions ahead",
    name: "partitions-ahead",
    sql: `do $$ begin execute (select 'drop table ' || string_agg(inhrelid::regclass::text, ', ')
      from pg_inherits where inhparent = 'bemi.changes'::regclass and inhrelid::regclass::text <> 'bemi.changes_default'
        and inhrelid::regclass::text > 'bemi.changes_p' || to_char(now() at time zone 'UTC', 'YYYYMM')); end $$`,
  },
  {
    title: "the log's guard is disabled",
    name: "append-only",
    sql: "alter table bemi.changes disable trigger append_only_truncate",
  },
  {
    title: "the log's guard is dropped",
    name: "append-only",
    sql: "drop trigger append_only on bemi.changes",
  },
  {
    title: "a partition's guard is dropped",
    name: "append-only",
    sql: "drop trigger append_only_truncate on bemi.changes_default",
  },
  {
    title: "row security hides the log",
    name: "row-security",
    sql: "alter table bemi.changes force row level security, enable row level security",
  },
  {
    title: "the log has another owner than its functions",
    name: "log-owner",
    realOnly: true,
    sql: "alter table bemi.changes owner to pg_database_owner",
  },
  {
    title: "a capture function runs as its caller",
    name: "function-changed",
    sql: "alter function bemi.capture_statement() security invoker",
  },
  {
    title: "the context function runs as its caller",
    name: "function-changed",
    sql: "alter function bemi.emit_context() security invoker",
  },
  {
    title: "a capture function trusts the search path",
    name: "function-changed",
    sql: "alter function bemi.capture_row() reset search_path",
  },
  { title: "somebody may erase", name: "log-rights", sql: "grant delete on bemi.changes to pg_monitor" },
  { title: "everybody may read", name: "log-rights", sql: "grant select on bemi.changes to public" },
  {
    title: "everybody may call a function",
    name: "function-rights",
    sql: "grant execute on function bemi.untrack(regclass) to public",
  },
  {
    title: "a role is a member of the log's owner",
    name: "owner-member",
    realOnly: true,
    sql: "grant postgres to pg_monitor",
  },
  { title: "the view is dropped", name: "view-missing", sql: "drop view public.changes" },
  {
    title: "a change was set aside, for a partition that is there again",
    name: "set-aside",
    sql:
      `insert into bemi.set_aside select id, to_jsonb(c) || jsonb_build_object('id', gen_random_uuid()), '23514' from bemi.changes c limit 1`,
  },
  {
    title: "the replica identity is lowered",
    name: "replica-identity",
    realOnly: true,
    sql: unseen("alter table orders replica identity default"),
  },
  {
    title: "a table leaves the publication",
    name: "not-published",
    realOnly: true,
    sql: "alter publication bemi drop table orders",
  },
  {
    title: "the publication keeps to some operations",
    name: "publication-options",
    realOnly: true,
    sql: "alter publication bemi set (publish = 'insert, update')",
  },
  {
    title: "the publication filters rows",
    name: "publication-filter",
    realOnly: true,
    sql: "alter publication bemi set table orders where (id > 100)",
  },
  {
    title: "the publication is dropped",
    name: "publication-missing",
    realOnly: true,
    sql: "drop publication bemi",
  },
  {
    title: "the slot is dropped",
    name: "slot-missing",
    realOnly: true,
    sql: "select pg_drop_replication_slot(bemi.slot_name())",
  },
  {
    title: "the slot speaks another language",
    name: "slot-foreign",
    realOnly: true,
    sql: `select pg_drop_replication_slot(bemi.slot_name());
      select pg_create_logical_replication_slot(bemi.slot_name(), 'test_decoding')`,
  },
  {
    title: "a table becomes unlogged",
    name: "wal-impossible",
    realOnly: true,
    sql: unseen("alter publication bemi drop table orders; alter table orders set unlogged"),
  },
  {
    title: "a table gets a virtual generated column",
    name: "wal-impossible",
    realOnly: true,
    since: 18,
    sql: unseen("alter table orders add doubled int generated always as (id * 2) virtual"),
  },
  {
    title: "the seal is not enforced",
    name: "seal-not-enforced",
    realOnly: true,
    sql: "update bemi.seal set sealed_by = pg_current_xact_id()",
  },
];

const eventTrigger = new WeakMap<TestDatabase, string>();

const nameOf = (database: TestDatabase): string => new URL(database.url ?? "").pathname.slice(1);

/** An installation as it should be: nothing for doctor to say but what cannot be otherwise here. */
async function healthy(database: TestDatabase, isReal: boolean): Promise<void> {
  const { db, port } = database;
  await install(db);
  await port.execute(`${TODOS}
    create table people (id int primary key, name text, password text);
    create table notes (id int primary key);
    create table days (year int primary key) partition by range (year);
    create table days_2026 partition of days for values from (2026) to (2027);`);
  await trackAll(db);
  await track(db, "people", { mask: ["password"] });
  if (isReal) {
    await createSlot(db);
    await port.execute(
      "create table orders (id int primary key, total int); create table parcels (id int primary key)",
    );
    for (const table of ["orders", "parcels"]) await track(db, table, { capture: "wal" });
  }
  await port.execute("insert into lists (title) values ('home'); insert into todos (task) values ('Sleep')");
  const [row] = await port.query<{ name: string }>("select evtname as name from pg_event_trigger order by 1");
  eventTrigger.set(database, row?.name ?? "");
}

/** What is so in every test: a superuser is connected, and the server bounds no slot. */
const EXPECTED: readonly string[] = ["owner-connected", "slot-unbounded", "unsealed"];

async function names(database: TestDatabase): Promise<string[]> {
  return (await doctor(database.db)).map((finding) => finding.name).filter((name) =>
    !EXPECTED.includes(name)
  );
}

/** Pastes a repair, as into psql or a shell. */
async function paste(database: TestDatabase, { repair }: Finding): Promise<void> {
  if (!repair.startsWith("bemi ")) return await database.port.execute(repair);
  const errors: string[] = [];
  const io = {
    env: { DATABASE_URL: database.url },
    out: () => {},
    err: (text: string) => void errors.push(text),
    columns: undefined,
    isColoured: false,
    progress: undefined,
    onTerminate: () => {},
  };
  expect(await main(repair.slice("bemi ".length).split(" "), io), errors.join("")).toBe(0);
}

onEachDatabase("doctor", (open, server) => {
  const isReal = server !== "PGlite";
  const possible = SABOTAGES.filter((s) =>
    (isReal || !s.realOnly) && (s.since ?? 0) <= Number(isReal ? server : 99)
  );

  test("has nothing to say of a healthy installation", async () => {
    await using database = await open();
    await healthy(database, isReal);
    expect(await names(database)).toEqual([]);
  });

  test.each(possible)("names it when $title, and its repair works", async ({ name, sql }) => {
    await using database = await open();
    const { port } = database;
    await healthy(database, isReal);
    for (const statement of [typeof sql === "string" ? sql : sql(database)]) await port.execute(statement);
    const findings = (await doctor(database.db)).filter((finding) => !EXPECTED.includes(finding.name));
    expect(findings.map((finding) => finding.name)).toContain(name);
    // What one repair mends, the next may find mended: but each can be pasted.
    for (const finding of findings) await paste(database, finding);
    // A seal is enforced once older transactions have ended, those of the server's other databases too.
    if (name === "seal-not-enforced") {
      await vi.waitFor(async () => {
        const left = (await doctor(database.db)).filter((finding) => finding.name === name);
        for (const finding of left) await paste(database, finding);
        expect(left).toEqual([]);
      }, { timeout: 20_000, interval: 200 });
    }
    expect(await names(database)).toEqual([]);

    const before = (await seen(port)).length;
    await port.execute(
      `insert into lists (title) values ('again'); update lists set title = 'and again' where title = 'again';
      insert into todos (task) values ('Eat'); insert into days values (2026)`,
    );
    expect((await seen(port)).length).toBe(before + 4);
    if (!isReal) return;
    await port.execute("insert into orders values (7, 1); update orders set total = 2; delete from orders");
    await runWorker({ source: database.url ?? "", once: true }).finished;
    expect((await seen(port)).filter((change) => change.table === "orders").map((change) => change.operation))
      .toEqual(["CREATE", "UPDATE", "DELETE"]);
  });

  test("changes nothing", async () => {
    await using database = await open();
    await healthy(database, isReal);
    await database.port.execute(unseen('alter table lists disable trigger "!bemi_insert"'));
    const first = await doctor(database.db);
    expect(first.map((finding) => finding.name)).toContain("trigger-disabled");
    expect(await doctor(database.db)).toEqual(first);
  });

  test("names the schema in each command that mends what is wrong in another than the usual one", async () => {
    await using database = await open();
    const { db, port } = database;
    const schema = "Au dit";
    await install(db, { schema });
    await port.execute(
      `insert into "Au dit".gaps (source_id, from_lsn, to_source_id, to_lsn, reason)
      select s, '0/1', s, '0/2', 'a test' from "Au dit".register_source('1', 1, 'other', 'wal') s`,
    );
    const repairs = (await doctor(db, { schema })).map(({ repair }) => repair).filter((repair) =>
      repair.startsWith("bemi ")
    );
    expect(repairs).toContain("bemi reconcile --schema 'Au dit'");
    for (const repair of repairs) expect(repair).toMatch(/^bemi [a-z -]+ --schema 'Au dit'/);
  });

  test("keeps its other questions for a schema of its own version", async () => {
    await using database = await open();
    const { db, port } = database;
    await expect(doctor(db)).rejects.toMatchObject({ code: "schema_missing" });
    await install(db);
    await port.execute(
      `insert into bemi.migrations (version, name) values (${SCHEMA_VERSION + 1}, 'to_come')`,
    );
    expect(await doctor(db)).toMatchObject([{ severity: "error", name: "schema-new" }]);
    await port.execute(`delete from bemi.migrations where version >= ${SCHEMA_VERSION}`);
    expect(await doctor(db)).toMatchObject([{
      severity: "error",
      name: "schema-old",
      repair: "bemi migrate",
    }]);
  });
});

onEachServer("doctor", (open, server) => {
  test("knows an application that connects as the owner, and is silent once it does not", async () => {
    await using database = await open();
    await install(database.db);
    const app = database.connect({ max: 1, connection: { application_name: "shop" } });
    await app`select 1`;
    expect(await doctor(database.db)).toContainEqual(
      expect.objectContaining({
        name: "owner-connected",
        problem: expect.stringContaining("shop") as string,
      }),
    );
    await app.end();
  });

  test("looks at every function that runs with the rights of the log's owner", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    const functions = (await port.query<{ name: string }>(
      `select oid::regprocedure::text as name from pg_proc where pronamespace = 'bemi'::regnamespace and prosecdef`,
    )).map(({ name }) => name).sort();
    expect(functions.length).toBeGreaterThan(30);
    const looked = async (change: string): Promise<string[]> => {
      await port.execute(functions.map((name) => `alter function ${name} ${change}`).join("; "));
      return (await doctor(db)).filter(({ name }) => name === "function-changed").map(({ object }) => object)
        .sort();
    };
    // It qualifies every name instead.
    expect(await looked("reset search_path")).toEqual(
      functions.filter((name) => name !== "bemi.emit_context()"),
    );
    expect(await looked("security invoker")).toEqual(functions);
  });

  test("asks for a seal, and is content with one", async () => {
    await using database = await open();
    const { db } = database;
    await healthy(database, true);
    const unsealed = (await doctor(db)).find((finding) => finding.name === "unsealed");
    expect(unsealed).toMatchObject({ severity: "note", repair: "bemi init --seal" });
    await paste(database, unsealed as Finding);
    expect((await doctor(db)).map((finding) => finding.name)).not.toContain("unsealed");
    await seal(db);
    expect(await names(database)).toEqual([]);
  });

  test("sees a slot without bounds, a worker that falls behind, and a slot that lost its WAL", async () => {
    const own = await startServer(server);
    const sql = postgres(own.url(), { max: 1, onnotice() {} });
    const found = async (name: string): Promise<Finding | undefined> =>
      (await doctor(sql)).find((finding) => finding.name === name);
    const bound = async (size: string): Promise<void> => {
      await sql.unsafe(`alter system set max_slot_wal_keep_size = '${size}'`);
      await sql.unsafe("select pg_reload_conf()");
      await vi.waitFor(async () =>
        expect(await sql`show max_slot_wal_keep_size`).toMatchObject([{ max_slot_wal_keep_size: size }])
      );
    };
    const write = async (): Promise<void> => {
      await sql.unsafe("insert into orders values (1, 1); delete from orders");
      for (const statement of ["select pg_switch_wal()", "checkpoint"]) await sql.unsafe(statement);
    };
    try {
      await install(sql);
      await createSlot(sql);
      await sql.unsafe("create table orders (id int primary key, total int)");
      await track(sql, "orders", { capture: "wal" });
      for (const statement of (await found("slot-unbounded"))?.repair.split(/(?<=;) /) ?? []) {
        await sql.unsafe(statement);
      }
      await vi.waitFor(async () => expect(await found("slot-unbounded")).toBeUndefined());

      await bound("32MB");
      await write();
      await write();
      expect(await found("worker-behind")).toMatchObject({
        severity: "warning",
        problem: expect.stringContaining("none is reading") as string,
      });
      await runWorker({ source: own.url(), once: true }).finished;
      // The slot lets go of WAL as the worker confirms it, at the next running-transactions record.
      await sql.unsafe("checkpoint");
      await runWorker({ source: own.url(), once: true }).finished;
      expect(await found("worker-behind")).toBeUndefined();

      for (let i = 0; i < 4; i++) await write();
      const lost = await found("slot-lost");
      expect(lost).toMatchObject({ severity: "error" });
      expect(lost?.repair).toBe("bemi worker --once --recreate-slot");
      await runWorker({ source: own.url(), once: true, recreateSlot: true }).finished;
      await sql.unsafe("insert into orders values (2, 1)");
      await runWorker({ source: own.url(), once: true }).finished;
      expect(await sql`select reason from bemi.gaps`).toHaveLength(1);
      expect(await found("gap")).toMatchObject({ severity: "error", repair: "bemi reconcile" });
      await reconcile(sql);
      expect((await doctor(sql)).filter((finding) => finding.severity === "error")).toEqual([]);
    } finally {
      await sql.end({ timeout: 1 });
      await own.remove();
    }
  });

  test("sees a server that does not decode its Write-Ahead Log", async () => {
    const own = await startServer(server, ["fsync=off", "wal_level=replica"]);
    const sql = postgres(own.url(), { max: 1, onnotice() {} });
    try {
      await install(sql);
      await sql.unsafe("create table orders (id int primary key, total int)");
      await expect(track(sql, "orders", { capture: "wal" })).rejects.toMatchObject({
        code: "wal_unavailable",
      });
      await expect(trackAll(sql, { capture: "wal" })).rejects.toMatchObject({ code: "wal_unavailable" });
      await sql.unsafe(`select bemi.track('orders', '{"capture": "wal"}')`);
      expect((await doctor(sql))[0]).toMatchObject({ severity: "error", name: "wal-level" });
    } finally {
      await sql.end({ timeout: 1 });
      await own.remove();
    }
  });
});
