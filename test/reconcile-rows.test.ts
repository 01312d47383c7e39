import { expect, test } from "vitest";
import { onEachServer, type openOn, type TestDatabase } from "./support/databases.ts";
import { BEMI, createSlot, install, reconcile, runWorker, SCHEMA, track } from "./support/installation.ts";
import { baseline } from "../src/install/mod.ts";
import { seen } from "./support/todos.ts";

type Server = Awaited<ReturnType<typeof openOn>>;

const sleep = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms));

/** Tables that are tracked from the WAL, with what they hold in the log. */
async function prepare({ db, port, url }: Server, tables: string, names: readonly string[]): Promise<void> {
  await install(db);
  await createSlot(db);
  await port.execute(tables);
  for (const name of names) await track(db, name, { capture: "wal" });
  await runWorker({ source: url, once: true }).finished;
}

async function lose({ port, url }: Server, lost: string): Promise<void> {
  await runWorker({ source: url, once: true }).finished;
  await port.query(`select pg_drop_replication_slot(${BEMI}.slot_name())::text`);
  await port.execute(lost);
  await runWorker({ source: url, once: true, recreateSlot: true }).finished;
}

async function operations({ port, url }: TestDatabase, table: string): Promise<string[]> {
  await runWorker({ source: url ?? "", once: true }).finished;
  return (await seen(port)).filter((change) => change.table === table)
    .map(({ operation, key }) => `${operation} ${key}`);
}

onEachServer("reconciliation's rows", (open) => {
  test("a session's settings get into no row and no key", async () => {
    await using database = await open();
    const { port } = database;
    await prepare(
      database,
      `create table days (at timestamptz primary key, b bytea);
       create table todos (id int primary key, at timestamptz, b bytea, i interval, f float)`,
      ["days", "todos"],
    );
    await port.execute(`
      insert into days values ('2026-01-01 12:00+00', 'a');
      insert into todos values (1, '2026-01-01 12:00+00', 'a', '1 day 02:03:04', 0.1)`);
    await lose(database, "select 1");
    const before = (await seen(port)).length;
    const abroad = database.connect({
      connection: {
        TimeZone: "Europe/Berlin",
        bytea_output: "escape",
        DateStyle: "German",
        IntervalStyle: "sql_standard",
        extra_float_digits: "-10",
      } as never,
    });
    expect((await reconcile(abroad)).map(({ absent }) => absent)).toEqual([0, 0]);
    expect(await operations(database, "days")).toHaveLength(1);
    expect(await seen(port)).toHaveLength(before);
  });

  test("keys of another type or number of columns are absent, and stop nothing", async () => {
    await using database = await open();
    const { db, port } = database;
    await prepare(
      database,
      `create table todos (id text primary key, n int not null);
       create table tags (names text[] primary key);
       create table pairs (a int, b int, primary key (a, b))`,
      ["todos", "tags", "pairs"],
    );
    await port.execute(`
      insert into todos values ('abc', 1), ('2', 2);
      insert into tags values ('{a,b}'), ('{c}');
      insert into pairs values (1, 2), (3, 4)`);
    await lose(
      database,
      `delete from todos where id = 'abc'; alter table todos alter id type int using id::int;
       alter table pairs drop constraint pairs_pkey, add primary key (a);
       delete from tags where names = '{c}'`,
    );
    expect((await reconcile(db)).map(({ table, absent }) => [table, absent])).toEqual([
      ["public.pairs", 2],
      ["public.tags", 1],
      ["public.todos", 1],
    ]);
    expect(await operations(database, "todos")).toEqual(["CREATE abc", "CREATE 2", "UPDATE 2", "DELETE abc"]);
    expect(await operations(database, "tags")).toEqual([
      'CREATE ["a", "b"]',
      'CREATE ["c"]',
      'DELETE ["c"]',
    ]);
    expect((await operations(database, "pairs")).slice(2).sort()).toEqual([
      "CREATE 1",
      "CREATE 3",
      "DELETE [1, 2]",
      "DELETE [3, 4]",
    ]);
  });

  test("no row is passed over where the last of a chunk gets another key meanwhile", async () => {
    await using database = await open();
    const { port } = database;
    await prepare(database, "create table todos (id int primary key)", ["todos"]);
    await port.execute("insert into todos select generate_series(1, 20)");
    const writer = database.connect({ max: 1 });
    const writing = writer.begin(async (tx) => {
      await tx`update todos set id = 1000 where id = 5`;
      await sleep(500);
    });
    await sleep(200);
    expect(await port.query(`select ${BEMI}.reconcile_rows('todos', null, 5)::text as last`)).toEqual([{
      last: "{5}",
    }]);
    await writing;
    const next = `select ${BEMI}.reconcile_rows('todos', '{5}', 15)::text as last`;
    expect(await port.query(next)).toEqual([{ last: "{20}" }]);
    const last = `select ${BEMI}.reconcile_rows('todos', '{20}', 15)::text as last`;
    expect(await port.query(last)).toEqual([{ last: null }]);
  });

  test("a snapshot from before the lock says of no row that it is absent", async () => {
    await using database = await open();
    await prepare(database, "create table todos (id int primary key)", ["todos"]);
    const [repeatable] = [
      database.connect({ max: 1, connection: { default_transaction_isolation: "repeatable read" } as never }),
    ];
    await database.port.execute("insert into todos values (1)");
    await lose(database, "delete from todos");
    await expect(reconcile(repeatable)).rejects.toMatchObject({
      code: "not_trackable",
      hint: expect.stringContaining("read committed") as string,
    });
  });

  test("what a policy hides is not taken for absent", async () => {
    await using database = await open();
    const { db, port } = database;
    await prepare(database, "create table todos (id int primary key, tenant text)", ["todos"]);
    await port.execute("insert into todos values (1, 'a')");
    const role = `hidden_${database.url.replace(/.*\//, "")}`;
    await port.execute(`create role ${role} login`);
    try {
      await port.execute(`
        grant usage on schema ${BEMI} to ${role}; alter table todos owner to ${role};
        alter table todos enable row level security, force row level security;
        grant all on all tables in schema ${BEMI} to ${role};
        alter function ${BEMI}.reconcile_absent(regclass, text[]) owner to ${role};
        alter function ${BEMI}.reconcile_rows(regclass, text[], integer) owner to ${role};
        alter function ${BEMI}.baseline(regclass, integer) owner to ${role};
        grant execute on all functions in schema ${BEMI} to ${role}`);
      const own = database.connect({ max: 1, username: role } as never);
      const refusal = {
        code: "privilege_missing",
        message: expect.stringContaining("Row level security hides rows of public.todos") as string,
        hint: expect.stringContaining("bypassrls") as string,
      };
      await expect(baseline(own, "todos", { schema: SCHEMA })).rejects.toMatchObject(refusal);
      await expect(own.unsafe(`select ${BEMI}.reconcile_rows('todos', null, 10)`)).rejects.toMatchObject({
        code: "42501",
      });
      await expect(own.unsafe(`select ${BEMI}.reconcile_absent('todos', '{1}')`)).rejects.toMatchObject({
        code: "42501",
      });
      await port.execute("alter table todos no force row level security");
      expect(await own.unsafe(`select ${BEMI}.reconcile_absent('todos', '{1}')::int as n`)).toEqual([{
        n: 0,
      }]);
    } finally {
      await port.execute(`drop owned by ${role}`).catch(() => {});
      await db.unsafe(`reassign owned by ${role} to postgres; drop owned by ${role}; drop role ${role}`)
        .catch(() => {});
    }
  });

  test("the rows of a table without a key stay unknown after a gap", async () => {
    await using database = await open();
    const { db, port } = database;
    await prepare(database, "create table loose (v text)", ["loose"]);
    await port.execute("insert into loose values ('l1'), ('l2')");
    await lose(database, "insert into loose values ('l3')");
    expect(await reconcile(db)).toEqual([{ table: "public.loose", isCompared: false, absent: 0 }]);
    const now = `select v from ${BEMI}.as_of(null::loose, clock_timestamp()) order by v`;
    await expect(port.query(now)).rejects.toMatchObject({ code: "BE001" });
    await port.execute("truncate loose; insert into loose values ('l4')");
    await runWorker({ source: database.url, once: true }).finished;
    expect(await port.query(now)).toEqual([{ v: "l4" }]);
  });
});
