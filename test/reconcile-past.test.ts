import { expect, test } from "vitest";
import type { Database } from "../src/database/port.ts";
import { onEachServer, type TestDatabase } from "./support/databases.ts";
import { BEMI, createSlot, install, reconcile, runWorker, track } from "./support/installation.ts";
import { seen } from "./support/todos.ts";

type Server = TestDatabase & { url: string };

/** Loses what is done meanwhile with the slot, then compares the tables with the log. */
async function afterGap(
  { db, url, port }: Server,
  lost: string,
  options: { readonly log?: Server; readonly tables?: readonly string[] } = {},
): Promise<string[]> {
  const { log, tables } = options;
  const run = (recreateSlot = false): Promise<void> =>
    runWorker({ source: url, once: true, recreateSlot, ...(log ? { destination: log.url } : {}) }).finished;
  await run();
  await port.query(`select pg_drop_replication_slot(${BEMI}.slot_name())::text`);
  await port.execute(lost);
  await run(true);
  await reconcile(db, { ...(tables ? { tables } : {}), ...(log ? { log: log.db } : {}) });
  await run();
  return await reconciled(log?.port ?? port);
}

async function reconciled(port: Database): Promise<string[]> {
  return (await seen(port))
    .filter(({ context }) => (context.db as { reconciled?: true } | undefined)?.reconciled)
    .map(({ operation, table, key }) => `${operation} ${table} ${key}`).sort();
}

onEachServer("reconciliation and what tables went through", (open) => {
  test.each([false, true])(
    "a table goes by all its names, and by no other's rows, the log in another database: %s",
    async (elsewhere) => {
      await using database = await open();
      await using other = await open();
      const { db, port, url } = database;
      const log = elsewhere ? { log: other } : {};
      await install(db);
      if (elsewhere) await install(other.db);
      await createSlot(db);
      await port.execute(`
        create table todos (id int primary key, task text, gone int);
        create table drafts (id int primary key, v text);`);
      for (const name of ["todos", "drafts"]) await track(db, name, { capture: "wal" });
      await port.execute(`
        insert into todos values (1, 'one', 1), (2, 'two', 2), (3, 'three', 3), (4, 'four', 4);
        insert into drafts values (7, 'of the dropped table'), (1, 'of it too')`);
      await port.execute(`
        alter table todos rename to items; alter table items rename task to title;
        alter table items drop gone, add extra int not null default 5, add gone text;
        drop table drafts; create table drafts (id int primary key, v text)`);
      await track(db, "drafts", { capture: "wal" });
      await port.execute(
        `insert into drafts values (2, 'kept'); update items set title = 'changed' where id = 4`,
      );
      expect(
        await afterGap(
          database,
          "delete from items where id = 2; update items set title = 'lost' where id = 3",
          log,
        ),
      )
        .toEqual(["DELETE items 2", "UPDATE items 3"]);
      const changes = await seen((elsewhere ? other : database).port);
      expect(changes.findLast(({ operation, key }) => operation === "UPDATE" && key === "3")).toMatchObject({
        before: { id: 3, title: "three", extra: 5 },
        after: { id: 3, title: "lost", extra: 5, gone: null },
      });
      if (elsewhere) return;
      expect(
        await port.query(`select id, title from ${BEMI}.as_of(null::items, clock_timestamp()) order by id`),
      )
        .toEqual(await port.query("select id, title from items order by id"));
      await runWorker({ source: url, once: true }).finished;
    },
  );

  test("a partition's TRUNCATE says nothing of the table's other rows", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    await createSlot(db);
    await port.execute(`
      create table parts (id int, region text, v text, primary key (id, region)) partition by list (region);
      create table parts_a partition of parts for values in ('a');
      create table parts_b partition of parts for values in ('b');`);
    await track(db, "parts", { capture: "wal" });
    await port.execute("insert into parts values (1, 'a', 'x'), (2, 'b', 'y'), (3, 'b', 'z')");
    await port.execute("truncate parts_a");
    expect(await afterGap(database, "delete from parts where id = 3")).toEqual([
      'DELETE parts [1, "a"]',
      'DELETE parts [3, "b"]',
    ]);
  });

  test("keys that rows took from one another within a statement are not gone", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    await createSlot(db);
    await port.execute(`
      create table todos (id int primary key deferrable, v text);
      create table swaps (id int primary key deferrable, v text);
      create table others (id int primary key deferrable, v text)`);
    for (const name of ["todos", "swaps", "others"]) await track(db, name, { capture: "wal" });
    await port.execute(`
      insert into todos values (1, 'one'), (2, 'two'), (3, 'three');
      insert into swaps values (1, 'same'), (2, 'same');
      insert into others values (1, 'one'), (2, 'two')`);
    await port.execute("update todos set id = id + 1");
    await port.execute("update swaps set id = 3 - id");
    await port.execute("update others set id = id + 1; delete from others where id = 2");
    expect(await afterGap(database, "delete from todos where id = 4")).toEqual(["DELETE todos 4"]);
  });

  test("what differs in ignored columns alone does not differ", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    await createSlot(db);
    await port.execute("create table todos (id int primary key, task text, seen int)");
    await track(db, "todos", { capture: "wal", ignore: ["seen"] });
    await port.execute("insert into todos values (1, 'one', 1), (2, 'two', 1)");
    await port.execute("update todos set seen = 2");
    expect(await afterGap(database, "update todos set task = 'lost' where id = 2")).toEqual([
      "UPDATE todos 2",
    ]);
  });

  test("tables are named as in SQL, whatever the search path", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    await createSlot(db);
    await port.execute(
      `create table todos (id int primary key); create table "My todos" (id int primary key)`,
    );
    for (const name of ["todos", '"My todos"']) await track(db, name, { capture: "wal" });
    const lost = `insert into todos values (1); insert into "My todos" values (1)`;
    expect(await afterGap(database, lost, { tables: ["todos", 'public."My todos"'] })).toEqual([
      "CREATE My todos 1",
      "CREATE todos 1",
    ]);
  });

  test("a difference that the log refuses counts as a break", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    await createSlot(db);
    await port.execute("create table todos (id int primary key, task text)");
    await track(db, "todos", { capture: "wal" });
    await port.execute(`alter table ${BEMI}.changes add check (after ->> 'task' <> 'refused')`);
    await afterGap(database, "insert into todos values (1, 'refused')");
    expect(await port.query(`select reason from ${BEMI}.breaks_of('todos') where reason ~ 'set aside'`))
      .toEqual([
        { reason: "a change was set aside (SQLSTATE 23514)" },
      ]);
  });
});
