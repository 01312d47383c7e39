import { expect, test } from "vitest";
import type { Database } from "../src/database/port.ts";
import { doctor } from "../src/install/mod.ts";
import { onEachServer } from "./support/databases.ts";
import { BEMI, createSlot, install, reconcile, runWorker, SCHEMA, track } from "./support/installation.ts";
import { seen } from "./support/todos.ts";

const TABLES = `
  create table todos (id int primary key, task text, n numeric);
  create table marks (todo int, label text, at timestamptz default '2026-01-02 03:04:05.678901+00', primary key (todo, label));
  create table parts (id int, region text, v text, primary key (id, region)) partition by list (region);
  create table parts_a partition of parts for values in ('a');
  create table parts_b partition of parts for values in ('b');
  create table drafts (id int primary key, v text);
  create table loose (v text);`;
const NAMES = ["todos", "marks", "parts", "drafts"];

/** The tables as replaying the log makes them, by key. */
async function replayed(port: Database): Promise<Record<string, unknown[]>> {
  const tables = new Map<string, Map<string | null, unknown>>(NAMES.map((name) => [name, new Map()]));
  for (const { table, operation, key, former, after } of await seen(port)) {
    const rows = tables.get(table);
    if (operation === "TRUNCATE") rows?.clear();
    rows?.delete(former ?? key);
    if (operation !== "DELETE" && operation !== "TRUNCATE") rows?.set(key, after);
  }
  return Object.fromEntries(NAMES.map((name) => [name, sorted([...(tables.get(name)?.values() ?? [])])]));
}

async function live(port: Database): Promise<Record<string, unknown[]>> {
  return Object.fromEntries(
    await Promise.all(NAMES.map(async (name) => {
      const rows = await port.query<{ json: string }>(`select to_jsonb(t)::text as json from ${name} t`);
      return [name, sorted(rows.map(({ json }) => JSON.parse(json) as object))] as const;
    })),
  );
}

const sorted = (rows: unknown[]): unknown[] =>
  rows.map((row) => JSON.stringify(Object.entries(row as object).sort())).sort();

onEachServer("reconciliation", (open) => {
  test.each([false, true])(
    "what was lost with the slot is found again, the log in another database: %s",
    async (elsewhere) => {
      await using database = await open();
      await using other = await open();
      const { db: sql, port, url } = database;
      const log = elsewhere ? other : database;
      const run = (recreateSlot = false): Promise<void> =>
        runWorker({ source: url, once: true, recreateSlot, ...(elsewhere ? { destination: other.url } : {}) })
          .finished;
      await install(sql);
      if (elsewhere) await install(other.db);
      await createSlot(sql);
      await port.execute(TABLES);
      for (const name of [...NAMES, "loose"]) await track(sql, name, { capture: "wal" });
      await port.execute(`
      insert into todos select n, 'task ' || n, n / 3.0 from generate_series(1, 1200) n;
      insert into marks (todo, label) select n, 'label "' || n || '"' from generate_series(1, 20) n;
      insert into parts select n, case when n % 2 = 0 then 'a' else 'b' end, 'v' from generate_series(1, 20) n;
      insert into drafts values (1, 'a'), (2, 'b'), (3, 'c');
      delete from todos where id = 3; insert into loose values ('x')`);
      await run();
      await sql.unsafe(`select pg_drop_replication_slot(${BEMI}.slot_name())`);
      await port.execute(`
      insert into todos values (2001, 'new', 1), (3, 'again', null);
      update todos set task = 'changed' where id = 10;
      update todos set id = 3000 where id = 11;
      delete from todos where id between 20 and 29;
      update marks set label = 'other' where todo = 2; delete from marks where todo = 3;
      update parts set region = 'b' where id = 2; delete from parts where id = 4;
      truncate drafts; insert into drafts values (2, 'b'), (4, 'd');
      insert into loose values ('y')`);
      await run(true);
      // After the gap, before and during reconciliation, life goes on.
      await port.execute("update todos set task = 'later' where id = 12; delete from todos where id = 13");
      expect(await replayed(log.port)).not.toEqual(await live(port));
      const results = await reconcile(sql, { chunk: 100, ...(elsewhere ? { log: other.db } : {}) });
      expect(results.map(({ table, isCompared, absent }) => [table, isCompared, absent])).toEqual([
        ["public.drafts", true, 2],
        ["public.loose", false, 0],
        ["public.marks", true, 2],
        ["public.parts", true, 2],
        ["public.todos", true, 12],
      ]);
      await port.execute(
        "update todos set task = 'after' where id = 10; insert into todos values (11, 'anew', 0)",
      );
      await run();
      expect(await replayed(log.port)).toEqual(await live(port));

      const found = (await seen(log.port)).filter(({ context }) =>
        (context.db as { reconciled?: true } | undefined)?.reconciled
      );
      const brief = found.map(({ operation, table, key }) => `${operation} ${table} ${key}`);
      expect(brief.filter((line) => / todos /.test(line)).sort()).toEqual([
        "CREATE todos 2001",
        "CREATE todos 3",
        "CREATE todos 3000",
        "DELETE todos 11",
        ...[20, 21, 22, 23, 24, 25, 26, 27, 28, 29].map((n) => `DELETE todos ${n}`),
        "UPDATE todos 10",
      ]);
      expect(brief.filter((line) => / drafts /.test(line)).sort()).toEqual([
        "CREATE drafts 4",
        "DELETE drafts 1",
        "DELETE drafts 3",
      ]);
      const update = found.find(({ table, key }) => table === "todos" && key === "10");
      expect([update?.before.task, update?.after.task]).toEqual(["task 10", "changed"]);
      expect((await doctor(log.db, { schema: SCHEMA })).map(({ name }) => name)).not.toContain("gap");

      // Nothing differs any more: nothing is recorded.
      const count = (await seen(log.port)).length;
      await reconcile(sql, elsewhere ? { log: other.db } : {});
      await run();
      expect(await seen(log.port)).toHaveLength(count);
    },
  );

  test("rows that are written meanwhile are compared in their place", async () => {
    await using database = await open();
    const { db: sql, port, url } = database;
    await install(sql);
    await createSlot(sql);
    await port.execute(TABLES);
    for (const name of NAMES) await track(sql, name, { capture: "wal" });
    await port.execute("insert into todos select n, 'task', 0 from generate_series(1, 500) n");
    await runWorker({ source: url, once: true }).finished;
    await using _worker = runWorker({ source: url });
    let isOver = false;
    const writers = [1, 2].map(async (who) => {
      for (let i = 0; !isOver; i++) {
        // Each has rows of its own.
        const id = 1 + (i * 14 + who) % 500;
        await sql`delete from todos where id = ${id}`;
        await sql`insert into todos values (${id}, ${`${who}.${i}`}, ${i})`;
        await sql`update todos set id = 1000 + id where id = ${id} and id % 5 = 0`;
        await sql`update todos set id = id - 1000 where id = ${1000 + id}`;
      }
    });
    for (let i = 0; i < 3; i++) await reconcile(sql, { chunk: 50 });
    isOver = true;
    await Promise.all(writers);
    await _worker.stop();
    await runWorker({ source: url, once: true }).finished;
    expect(await replayed(port)).toEqual(await live(port));
    // There was no gap: nothing may look as if there had been one.
    expect(
      (await seen(port)).filter(({ context }) =>
        (context.db as { reconciled?: true } | undefined)?.reconciled
      ),
    )
      .toEqual([]);
  });
});
