import { expect, test } from "vitest";
import { asOf } from "../src/history/mod.ts";
import { maintain } from "../src/install/mod.ts";
import { onEachDatabase, onEachServer, type TestDatabase } from "./support/databases.ts";
import { BEMI, createSlot, install, runWorker, SCHEMA as schema, track } from "./support/installation.ts";
import { clock } from "./support/moments.ts";

/** Whether one row as of now is what its last change says, and nothing else is looked at. */
async function isPlain({ port }: TestDatabase, table = "todos"): Promise<boolean> {
  const [row] = await port.query<{ plain: boolean }>(
    `select (${BEMI}.last_image('${table}'::regclass, '1', clock_timestamp())).is_known as plain`,
  );
  return row?.plain ?? false;
}

async function tracking(database: TestDatabase): Promise<void> {
  await install(database.db);
  await database.port.execute(
    "create table todos (id int primary key, n int); create table lists (id int primary key)",
  );
  await track(database.db, "todos");
}

onEachDatabase("one row as of a time", (open) => {
  test("is read plainly once its table is tracked, until something else has to be looked at", async () => {
    await using database = await open();
    const { port } = database;
    await tracking(database);
    await port.execute("insert into todos values (1, 1), (2, 2)");
    expect(await isPlain(database)).toBe(true);
    await track(database.db, "lists");
    await port.execute(
      "create table elsewhere (id int); create table elsewhere_with_key (id int primary key); create table more (id int primary key)",
    );
    await track(database.db, "more");
    expect([await isPlain(database), await isPlain(database, "lists")]).toEqual([true, true]);
    // Of this row alone.
    await port.execute("update todos set id = 9 where id = 1");
    expect(await isPlain(database)).toBe(false);
    expect(await isPlain(database, "lists")).toBe(true);

    for (
      const [change, undo] of [
        [
          `insert into ${BEMI}.set_aside (id, change, sqlstate) select gen_random_uuid(), '{}', '22P05'`,
          `delete from ${BEMI}.set_aside`,
        ],
        ["alter table lists rename to shelves", "alter table shelves rename to lists"],
        ["alter table lists add column k int", undefined],
      ] as const
    ) {
      await port.execute(change);
      const [name] = await port.query<{ name: string }>(
        `select relation::text as name from ${BEMI}.tracked_tables where name in ('lists', 'shelves')`,
      );
      expect(await isPlain(database, name?.name), change).toBe(false);
      if (undo) await port.execute(undo);
    }
    // What happens to one table ends nothing of another.
    const [ends] = await port.query<{ n: string }>(`select count(*)::text as n from ${BEMI}.plain_read_ends`);
    expect(ends?.n).toBe("0");
    await track(database.db, "elsewhere_with_key");
    await port.execute("drop table elsewhere_with_key");
    expect(await isPlain(database, "todos")).toBe(false);
    expect(await isPlain(database, "more")).toBe(true);
  });
});

onEachServer("one row as of a time", (open) => {
  test("what others have yet to commit ends it then, whoever looked meanwhile, and maintain() looks again", async () => {
    await using database = await open();
    const { db, port } = database;
    await tracking(database);
    await track(db, "lists");
    await port.execute("insert into todos values (1, 1)");
    const other = database.connect({ max: 1 });
    for (const level of ["read committed", "repeatable read"]) {
      expect(await isPlain(database), level).toBe(true);
      await other.unsafe(`begin isolation level ${level}; select from todos`);
      await other.unsafe(`insert into ${BEMI}.breaks (table_id, reason) select id, 'test' from ${BEMI}.tables
        where relation = 'todos'::regclass`);
      // Somebody who does not see it finds all tables as plain as before, and commits first.
      await port.execute(`insert into ${BEMI}.plain_read_ends default values`);
      await other.unsafe("commit");
      expect(await isPlain(database), level).toBe(false);
      // With a snapshot of its own from before it could not look itself.
      expect(await isPlain(database, "lists"), level).toBe(level === "read committed");
      await maintain(db, { schema });
      expect(await isPlain(database), level).toBe(false);
      expect(await isPlain(database, "lists"), level).toBe(true);
      await port.execute(`delete from ${BEMI}.breaks`);
    }
  });

  test("also where the WAL is captured, as far as the log has it", async () => {
    await using database = await open();
    const { db, port, url } = database;
    await install(db);
    await createSlot(db);
    await port.execute("create table todos (id int primary key, n int)");
    await track(db, "todos", { capture: "wal" });
    await port.execute("insert into todos values (1, 1)");
    const time = await clock(port);
    await port.execute("update todos set n = 2");
    const plain = async (): Promise<boolean | undefined> =>
      (await port.query<{ plain: boolean }>(
        `select (${BEMI}.last_image('todos'::regclass, '1', '${time}')).is_known as plain`,
      ))[0]?.plain;
    expect(await plain()).toBe(false);
    await runWorker({ source: url, once: true }).finished;
    expect(await plain()).toBe(true);
    expect(await asOf(db, "todos", time, { schema, key: "1" })).toEqual([{ id: 1, n: 1 }]);
    expect(await isPlain(database)).toBe(false);
  });
});
