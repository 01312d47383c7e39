import { inspect } from "node:util";
import { expect, test } from "vitest";
import { asOf, asOfJson } from "../src/history/mod.ts";
import { baseline } from "../src/install/mod.ts";
import { onEachDatabase, onEachServer, type TestDatabase } from "./support/databases.ts";
import {
  BEMI,
  createSlot,
  install,
  maintain,
  reconcile,
  runWorker,
  SCHEMA as schema,
  track,
} from "./support/installation.ts";
import { clock, moments } from "./support/moments.ts";

type Capture = "trigger" | "wal";

async function tracked(database: TestDatabase, ddl: string, capture: Capture): Promise<() => Promise<void>> {
  const { db, port, url = "" } = database;
  await install(db);
  if (capture === "wal") await createSlot(db);
  await port.execute(ddl);
  await track(db, "todos", { capture });
  return async () => {
    if (capture === "wal") await runWorker({ source: url, once: true }).finished;
  };
}

/** Two rows that the log has, noted as `before`; the slot is dropped since. */
async function withoutSlot(
  database: TestDatabase,
): Promise<{ catchUp: () => Promise<void>; seen: ReturnType<typeof moments> }> {
  const catchUp = await tracked(database, TABLE, "wal");
  const seen = moments(database, "todos");
  await database.port.execute("insert into todos values (1, 'a'), (2, 'b')");
  await seen.note("before");
  await catchUp();
  await database.port.execute(`select pg_drop_replication_slot(${BEMI}.slot_name())`);
  return { catchUp, seen };
}

/** Lets the log be one that began in 2020, with its oldest changes in a month of their own. */
async function age(database: TestDatabase): Promise<void> {
  await database.port.execute(`
    select ${BEMI}.add_partition('2020-01-01');
    update ${BEMI}.tracked_tables set tracked_at = '2020-01-15';
    update ${BEMI}.table_names set named_at = '2020-01-15';
    update ${BEMI}.table_columns set named_at = '2020-01-15';
    update ${BEMI}.baselines set started_at = '2020-01-15', finished_at = '2020-01-15';
    insert into ${BEMI}.changes select (jsonb_populate_record(c, jsonb_build_object('id', gen_random_uuid(),
      'committed_at', '2020-01-20 00:00+00', 'commit_lsn', c.commit_lsn - 1000, 'primary_key', '9',
      'after', jsonb_build_object('id', 9, 'task', 'old')))).* from ${BEMI}.changes c where primary_key = '1'`);
}

const TABLE = "create table todos (id int primary key, task text)";

function alike(open: () => Promise<TestDatabase>, capture: Capture): void {
  test("a value that today's type does not take is refused, without the value", async () => {
    await using database = await open();
    const { db, port } = database;
    const catchUp = await tracked(
      database,
      "create type mood as enum ('secret', 'ok'); create table todos (id int primary key, mood mood)",
      capture,
    );
    await port.execute("insert into todos values (1, 'secret')");
    await catchUp();
    const then = await clock(port);
    await port.execute("alter type mood rename value 'secret' to 'other'");
    await port.execute("update todos set mood = 'ok'");
    await catchUp();
    const options = { schema, wait: false } as const;
    for (
      const read of [
        () => asOf(db, "todos", then, options),
        () => asOf(db, "todos", then, { ...options, key: "1" }),
        () => asOfJson(db, "todos", then, options),
        () => asOf(db, then, () => Promise.resolve(), options),
      ]
    ) {
      const error = await read().then(() => undefined, (thrown: unknown) => thrown);
      expect(error).toMatchObject({ code: "history_unknown", hint: expect.stringContaining("history()") });
      expect(inspect(error)).not.toContain("secret");
    }
  });

  test("a time that is yet to come is refused, by the server's clock, give or take a minute", async () => {
    await using database = await open();
    const { db, port } = database;
    const catchUp = await tracked(database, TABLE, capture);
    await port.execute("insert into todos values (1, 'a')");
    await catchUp();
    const inSeconds = async (n: number): Promise<string> =>
      (await port.query<{ t: string }>(`select (clock_timestamp() + interval '${n} s')::text as t`))[0]?.t ??
        "";
    const future = await inSeconds(90);
    for (const wait of [undefined, false] as const) {
      const options = { schema, wait };
      for (
        const read of [
          () => asOf(db, "todos", future, options),
          () => asOf(db, "todos", new Date(future), { ...options, key: "1" }),
          () => asOfJson(db, "todos", "infinity", options),
          () => asOf(db, future, () => Promise.resolve(), options),
        ]
      ) {
        await expect(read()).rejects.toMatchObject({
          code: "usage",
          message: "This time is yet to come",
          hint: expect.stringContaining("clock") as string,
        });
      }
    }
    await expect(port.query(`select from ${BEMI}.as_of(null::todos, '${future}')`)).rejects.toMatchObject({
      code: "22023",
      message: expect.stringContaining("is yet to come") as string,
    });
    expect(await asOf(db, "todos", await inSeconds(30), { schema, wait: false })).toHaveLength(1);
  });

  test("months past their retention are unknown, not empty", async () => {
    await using database = await open();
    const { db, port } = database;
    const catchUp = await tracked(database, TABLE, capture);
    await port.execute("insert into todos values (1, 'a')");
    await catchUp();
    await age(database);
    await port.execute("set session_replication_role = replica; insert into todos values (9, 'old')");
    await port.execute("reset session_replication_role");
    const then = (): Promise<object[]> => asOf(db, "todos", "2020-01-25 00:00+00", { schema, wait: false });
    expect(await then()).toEqual([{ id: 9, task: "old" }]);
    await port.execute(`update ${BEMI}.settings set retention = '1 year'`);
    expect((await maintain(db)).map(({ action }) => action)).toContain("dropped");
    await expect(then()).rejects.toMatchObject({
      code: "history_unknown",
      message: expect.stringContaining("older changes are past their retention"),
      hint: expect.stringMatching(/known from 20[2-9]\d-\d\d-01/),
    });
    const seen = moments(database, "todos");
    await port.execute("update todos set task = 'b' where id = 1");
    await seen.note("later");
    await port.execute("delete from todos where id = 1");
    await catchUp();
    if (capture === "wal") {
      expect((await seen.told()).later).toContain("past their retention");
      // As the hint says: recorded once more, the rows are known since the oldest month that is left.
      expect(await baseline(db, "todos", { schema })).toBe(1);
      await catchUp();
      expect(await baseline(db, "todos", { schema })).toBe(0);
    }
    expect(await seen.told()).toEqual({ later: "known" });
    await expect(then()).rejects.toMatchObject({ code: "history_unknown" });
  });

  test("values that ALTER TYPE computes anew end what is known before, though the type stays what it was", async () => {
    await using database = await open();
    const { db, port } = database;
    const catchUp = await tracked(database, "create table todos (id int primary key, n int)", capture);
    const seen = moments(database, "todos", "id, n");
    await port.execute("insert into todos values (1, 1), (2, 2)");
    await seen.note("before");
    await port.execute("alter table todos alter n type int using n * 100");
    await seen.note("after");
    await catchUp();
    const told = expect.stringContaining("a column's values were computed anew");
    expect(await seen.told()).toEqual({ before: told, after: capture === "wal" ? told : "known" });
    if (capture === "wal") await baseline(db, "todos", { schema });
    await port.execute("update todos set n = 3 where id = 1");
    await seen.note("later");
    await catchUp();
    expect(await seen.told()).toMatchObject({ later: "known" });
  });

  test("another type of a column, and another primary key, end what is known before", async () => {
    await using database = await open();
    const { db, port } = database;
    const catchUp = await tracked(
      database,
      "create table todos (id int primary key, n text, u int)",
      capture,
    );
    const seen = moments(database, "todos", "id, u");
    const step = async (name: string, sql: string): Promise<void> => {
      await port.execute(sql);
      await seen.note(name);
    };
    await step("first", "insert into todos values (1, '1.50', 10), (2, '2', 20)");
    await step("type", "alter table todos alter n type numeric using n::numeric");
    await step("between", "update todos set u = 11 where id = 1");
    await step(
      "key",
      "alter table todos drop constraint todos_pkey, alter u set not null, add primary key (u)",
    );
    await step("last", "delete from todos where u = 20; insert into todos values (1, 3, 12)");
    await catchUp();
    const before = await seen.told();
    expect(before).toMatchObject({
      first: expect.stringMatching(/the type of the column n was changed|primary key was changed/),
      between: expect.stringMatching(/the type of the column n was changed|primary key was changed/),
    });
    if (capture === "wal") {
      expect(before.last).toMatch(/primary key was changed/);
      await baseline(db, "todos", { schema });
      await catchUp();
    }
    const after = await seen.told();
    expect(after).toMatchObject({ key: "known", last: "known" });
    expect(after.between).not.toBe("known");
  });

  test("a partition that is attached or detached with its rows, or dropped", async () => {
    await using database = await open();
    const { db, port } = database;
    const catchUp = await tracked(
      database,
      `create table todos (id int, k int, primary key (id, k)) partition by list (k);
      create table todos_1 partition of todos for values in (1);
      create table todos_2 partition of todos for values in (2);
      create table todos_3 (id int, k int not null, primary key (id, k));
      insert into todos_3 values (3, 3)`,
      capture,
    );
    const seen = moments(database, "todos");
    const step = async (name: string, sql: string): Promise<void> => {
      await port.execute(sql);
      await seen.note(name);
    };
    await step("empty", "create table others (id int)");
    await step("first", "insert into todos values (1, 1), (2, 2)");
    await step("attached", "alter table todos attach partition todos_3 for values in (3)");
    await step("written", "insert into todos values (4, 3)");
    await step("detached", "alter table todos detach partition todos_2");
    await step("aside", "insert into todos_2 values (9, 2); insert into todos values (5, 1)");
    await step("dropped", "drop table todos_1");
    await step("last", "update todos set id = 6 where id = 4");
    await catchUp();
    expect(await seen.told()).toMatchObject({
      empty: expect.stringMatching(/a partition was attached with its rows/),
      first: expect.stringMatching(/a partition was attached with its rows/),
      attached: expect.stringMatching(/a partition was attached with its rows/),
      written: expect.stringMatching(/a partition was attached with its rows/),
      aside: expect.stringMatching(/a partition was detached/),
    });
    if (capture === "wal") {
      expect((await seen.told()).last).toMatch(/a partition was dropped/);
      await baseline(db, "todos", { schema });
      await catchUp();
    }
    expect(await seen.told()).toMatchObject({ last: "known" });
  });
}

onEachDatabase("the limits of the past, by triggers", (open) => {
  alike(open, "trigger");

  test("a key that is spelled otherwise than the log spells it finds no row, and never today's", async () => {
    await using database = await open();
    const { db, port } = database;
    const id = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
    await install(db);
    await port.execute(`create table todos (id int primary key, task text); insert into todos values (1, 'a');
      create table cards (id uuid primary key, task text); insert into cards values ('${id}', 'a');
      create table items (list int, n int, task text, primary key (list, n)); insert into items values (1, 2, 'a')`);
    for (const table of ["todos", "cards", "items"]) await track(db, table);
    const then = await clock(port);
    await port.execute(`insert into todos values (3, 'later');
      update todos set task = 'b' where id = 1; update cards set task = 'b'; update items set task = 'b'`);
    const tasks = async (table: string, key: string): Promise<unknown[]> =>
      (await asOf(db, table, then, key === undefined ? { schema } : { schema, key })).map((row) => row.task);
    for (
      const [table, key] of [["todos", "1"], ["cards", id], ["items", "[1,2]"], ["items", "[1, 2]"]] as const
    ) {
      expect(await tasks(table, key), key).toEqual(["a"]);
    }
    for (const [table, key] of [["todos", "01"], ["todos", "03"], ["cards", id.toUpperCase()]] as const) {
      expect(await tasks(table, key), key).toEqual([]);
    }
  });

  test("a masked column stays masked under its new name, also in a row that is still as it was", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    await port.execute(
      `create table people (id int primary key, ssn text, name text); create table loose (ssn text, name text);
      insert into people values (1, '111', 'a'), (2, '222', 'b'); insert into loose select ssn, name from people`,
    );
    for (const table of ["people", "loose"]) await track(db, table, { mask: ["ssn"] });
    await port.execute("alter table people rename ssn to tax; alter table loose rename ssn to tax");
    const then = await clock(port);
    await port.execute(
      "update people set name = 'c' where id = 1; update loose set name = 'c' where name = 'a'",
    );
    for (const table of ["people", "loose"]) {
      expect((await asOf(db, table, then, { schema })).map(({ tax, name }) => [tax, name]).sort(), table)
        .toEqual([[null, "a"], [null, "b"]]);
    }
    expect(await asOf(db, "people", then, { schema, key: "2" })).toEqual([{ id: 2, tax: null, name: "b" }]);
  });

  test("a generated column is made of a column that is called as ours are within", async () => {
    await using database = await open();
    const { db, port } = database;
    const columns =
      "image text, primary_key text, imaged_at text, all_of_it text generated always as (image || primary_key || imaged_at) stored";
    await install(db);
    await port.execute(
      `create table photos (id int primary key, ${columns}); create table loose (${columns})`,
    );
    for (const table of ["photos", "loose"]) await track(db, table);
    await port.execute(
      "insert into photos values (1, 'a', 'b', 'c'); insert into loose values ('a', 'b', 'c')",
    );
    const then = await clock(port);
    await port.execute("delete from photos; delete from loose");
    for (const [table, key] of [["photos"], ["photos", "1"], ["loose"]] as const) {
      expect(await asOf(db, table, then, key === undefined ? { schema } : { schema, key })).toMatchObject([{
        image: "a",
        all_of_it: "abc",
      }]);
    }
  });
});

onEachServer("the limits of the past, from the WAL", (open) => {
  alike(open, "wal");

  test("a change that was set aside is a hole until it is retried, or until a baseline", async () => {
    await using database = await open();
    const { db, port } = database;
    const catchUp = await tracked(database, "create table todos (id int primary key, body json)", "wal");
    const seen = moments(database, "todos");
    await port.execute(`insert into todos values (1, '"a"')`);
    await seen.note("before");
    await port.execute(`insert into todos values (2, '"\\u0000"')`);
    const hole = await clock(port);
    await port.execute("update todos set body = '2' where id = 2");
    await seen.note("after");
    await catchUp();
    await expect(asOf(db, "todos", hole, { schema, wait: false })).rejects.toMatchObject({
      code: "history_unknown",
      message: expect.stringContaining("a change was set aside (SQLSTATE 22P05)"),
    });
    const told = await seen.told();
    expect(told).toEqual({ before: "known", after: expect.stringContaining("a change was set aside") });
    await baseline(db, "todos", { schema });
    await catchUp();
    expect(await seen.told()).toMatchObject({ after: "known" });
    await port.execute(
      `update ${BEMI}.set_aside set change = regexp_replace(change, '\\\\+u0000', 'mended', 'g');
      select ${BEMI}.retry_set_aside()`,
    );
    expect(await port.query(`select change, sqlstate from ${BEMI}.set_aside`)).toEqual([]);
    expect(await asOf(db, "todos", hole, { schema, wait: false })).toHaveLength(2);
    expect(await seen.told()).toEqual({ before: "known", after: "known" });
  });

  test("lost WAL is unknown from its beginning on, and only within it once it is reconciled", async () => {
    await using database = await open();
    const { db, port, url = "" } = database;
    const { catchUp, seen } = await withoutSlot(database);
    await port.execute("update todos set task = 'lost' where id = 1; delete from todos where id = 2");
    await seen.note("within");
    await runWorker({ source: url, once: true, recreateSlot: true }).finished;
    await port.execute("insert into todos values (3, 'c')");
    await seen.note("after");
    await catchUp();
    expect(await seen.told()).toEqual({
      before: "known",
      within: expect.stringContaining("WAL was lost from"),
      after: expect.stringContaining("WAL was lost from"),
    });
    await reconcile(db);
    await port.execute("update todos set task = 'd' where id = 3");
    await seen.note("reconciled");
    await catchUp();
    expect(await seen.told()).toEqual({
      before: "known",
      within: expect.stringContaining("WAL was lost from"),
      after: expect.stringContaining("WAL was lost from"),
      reconciled: "known",
    });
  });

  test("lost WAL is unknown as well where triggers capture the table since", async () => {
    await using database = await open();
    const { db, port, url = "" } = database;
    const { seen } = await withoutSlot(database);
    await port.execute("update todos set task = 'lost' where id = 1");
    await seen.note("within");
    await track(db, "todos", { capture: "trigger" });
    await seen.note("switched");
    await port.execute("update todos set task = 'c' where id = 2");
    await runWorker({ source: url, once: true, recreateSlot: true }).finished;
    expect(await seen.told()).toEqual({
      before: "known",
      within: expect.stringContaining("WAL was lost from"),
      switched: "known",
    });
  });

  test("a row that was born in lost WAL is not taken for one that a baseline before it knew", async () => {
    await using database = await open();
    const { db, port, url = "" } = database;
    const catchUp = await tracked(database, `${TABLE}; insert into todos values (1, 'a')`, "wal");
    const seen = moments(database, "todos");
    await seen.note("before the baseline");
    await baseline(db, "todos", { schema });
    await catchUp();
    await port.execute(
      `select pg_drop_replication_slot(${BEMI}.slot_name()); insert into todos values (9, 'lost')`,
    );
    await runWorker({ source: url, once: true, recreateSlot: true }).finished;
    await port.execute("update todos set task = 'seen' where id = 9");
    await catchUp();
    expect(await seen.told()).toEqual({ "before the baseline": "known" });
  });

  test("bemi.as_of joins tables of one moment in SQL, in today's shape, and says which columns came or went", async () => {
    await using database = await open();
    const { db, port } = database;
    await tracked(database, TABLE, "trigger");
    await port.execute("create table owners (id int primary key, name text)");
    await track(db, "owners");
    await port.execute("insert into owners values (1, 'Ann'); insert into todos values (1, 'a')");
    const then = await clock(port);
    await port.execute("update owners set name = 'Zoë'; update todos set task = 'b'");
    const notices: (string | undefined)[] = [];
    const sql = database.connect({ max: 1, onnotice: (notice) => notices.push(notice.message) });
    const rows = (columns: string, at: string): Promise<readonly object[]> =>
      sql.unsafe(`select ${columns} from ${BEMI}.as_of(null::todos, '${at}') t
        join ${BEMI}.as_of(null::owners, '${at}') o on o.id = t.id`);
    expect(await rows("t.task, o.name", then)).toEqual([{ task: "a", name: "Ann" }]);
    expect(await rows("t.task, o.name", await clock(port))).toEqual([{ task: "b", name: "Zoë" }]);
    expect(notices).toEqual([]);
    await port.execute("alter table todos add rank int not null default 3; alter table todos drop task");
    expect(await rows("t.*, o.name", then)).toEqual([{ id: 1, rank: 3, name: "Ann" }]);
    expect(notices).toEqual(["bemi: columns of public.todos since: task was dropped, rank was added"]);
  });

  test("bemi.as_of warns in SQL of a worker that has yet to read, and not of one that keeps up", async () => {
    await using database = await open();
    const { port, url = "" } = database;
    await tracked(database, TABLE, "wal");
    const notices: (string | undefined)[] = [];
    const sql = database.connect({ max: 1, onnotice: (notice) => notices.push(notice.message) });
    await port.execute("insert into todos values (1, 'a')");
    const rows = (): Promise<readonly object[]> =>
      sql.unsafe(`select * from ${BEMI}.as_of(null::todos, clock_timestamp())`);
    expect(await rows()).toEqual([]);
    expect(notices).toEqual([
      expect.stringMatching(
        /^bemi: the worker has \d+ bytes of WAL yet to read: what was committed after 20.+ may be missing$/,
      ),
    ]);
    const worker = runWorker({ source: url });
    try {
      await expect.poll(rows, { timeout: 30_000 }).toEqual([{ id: 1, task: "a" }]);
      // Its own checkpoint, and what others write on this server, is WAL as well: it keeps up with that too.
      const warnings = async (): Promise<number> => {
        notices.length = 0;
        expect(await rows()).toHaveLength(1);
        return notices.length;
      };
      await expect.poll(warnings, { timeout: 30_000 }).toBe(0);
    } finally {
      await worker.stop();
    }
  });
});
