import { expect, inject, test } from "vitest";
import { onEachServer, openOn, type TestDatabase } from "./support/databases.ts";
import { dumpAndRestore, dumpRefusal } from "./support/dump.ts";
import { BEMI, createSlot, install, runWorker, track } from "./support/installation.ts";

const CAPTURES = ["trigger", "wal"] as const;

interface Line {
  readonly id: string;
  readonly source: number;
  readonly system: string;
  readonly database: string;
  readonly story: string;
}

// In the total order.
async function lines({ port }: TestDatabase): Promise<Line[]> {
  return await port.query<Line & Record<string, unknown>>(`
    select c.id::text, c.source_id as source, s.system_identifier as system, s.database,
      format('%s %s %s %s', c.operation, c."table", c.primary_key, c.after) as story
    from ${BEMI}.changes c join ${BEMI}.sources s on s.id = c.source_id
    order by c.source_id, c.commit_lsn, c.transaction_index`);
}

/** What a logical dump carries over: the tables' rows as text, and their sequences. */
async function carryOver(from: TestDatabase, to: TestDatabase): Promise<void> {
  for (const table of [`${BEMI}.sources`, `${BEMI}.changes`, "public.todos"]) {
    const [row] = await from.port.query<{ rows: string }>(
      `select coalesce(jsonb_agg(to_jsonb(t.*)), '[]')::text as rows from ${table} t`,
    );
    await to.port.query(
      `insert into ${table} overriding system value select (jsonb_populate_recordset(null::${table}, $1::text::jsonb)).*`,
      [row?.rows ?? "[]"],
    );
  }
  await to.port.execute(`
    select setval(pg_get_serial_sequence('${BEMI}.sources', 'id'), (select max(id) from ${BEMI}.sources));
    select setval('${BEMI}.change_sequence', 1024 * 1000000::bigint)`);
}

onEachServer("history across a database's life", (open, server) => {
  const refusal = dumpRefusal(server);
  for (const capture of CAPTURES) {
    for (const { version } of inject("servers").filter((other) => Number(other.version) >= Number(server))) {
      test.skipIf(refusal !== undefined)(
        `goes on after a dump that is restored on PostgreSQL ${version} (${capture})${
          refusal ? `: skipped, ${refusal}` : ""
        }`,
        async () => {
          await using former = await open();
          await using next = await openOn(version);
          await install(former.db);
          if (capture === "wal") await createSlot(former.db);
          await former.port.execute(
            "create table todos (id int primary key, task text); create table gone (id int primary key)",
          );
          for (const table of ["todos", "gone"]) await track(former.db, table, { capture });
          await former.port.execute("insert into gone values (7); drop table gone");
          await former.port.execute("insert into todos values (1, 'a'); update todos set task = 'b'");
          if (capture === "wal") await runWorker({ source: former.url, once: true }).finished;
          const before = await lines(former);
          expect(before.length).toBe(3);

          dumpAndRestore(former.url, next.url);
          expect(await lines(next)).toEqual(before);
          await install(next.db);
          if (capture === "wal") await createSlot(next.db);
          await next.port.execute("alter table todos rename to tasks; update tasks set task = 'c'");
          await next.port.execute("create table more (id int primary key)");
          await former.port.execute("update todos set task = 'other'");
          for (const { url } of capture === "wal" ? [former, next] : []) {
            await runWorker({ source: url, once: true }).finished;
          }
          const after = await lines(next);
          expect(after.slice(0, 3)).toEqual(before);
          expect(after.slice(3).map(({ story }) => story)).toEqual(['UPDATE tasks 1 {"id": 1, "task": "c"}']);
          // Of another cluster, if it moved to one.
          expect(after[3]?.system === before[0]?.system).toBe(version === server);
          expect(after[3]?.source).not.toBe(before[0]?.source);
          const everywhere = [...after, ...(await lines(former)).slice(3)].map(({ id }) => id);
          expect(new Set(everywhere).size).toBe(5);
          // The row's whole history, under both of its table's names.
          expect(
            (await next.port.query(
              `select operation from ${BEMI}.history('tasks', '1') order by committed_at`,
            )).length,
          ).toBe(3);
        },
      );
    }
  }

  test.each(CAPTURES)(
    "goes on after a logical move, in order, and no id comes twice (%s)",
    async (capture) => {
      await using former = await open();
      await using next = await open();
      const write = async (database: typeof former, statements: readonly string[]): Promise<void> => {
        for (const statement of statements) await database.port.execute(statement);
        if (capture === "wal") await runWorker({ source: database.url, once: true }).finished;
      };
      const begin = async (database: typeof former): Promise<void> => {
        await install(database.db);
        if (capture === "wal") await createSlot(database.db);
        await database.port.execute("create table todos (id int primary key, task text)");
      };
      await begin(former);
      await track(former.db, "todos", { capture });
      await write(former, ["insert into todos values (1, 'a')", "update todos set task = 'b'"]);
      const before = await lines(former);

      await begin(next);
      await carryOver(former, next);
      await track(next.db, "todos", { capture });
      await write(next, ["update todos set task = 'c'", "delete from todos"]);
      // The former one lives on, at LSNs that the next one has too.
      await write(former, ["update todos set task = 'other'"]);

      const after = await lines(next);
      expect(after.slice(0, 2)).toEqual(before);
      expect(after.map(({ story }) => story)).toEqual([
        'CREATE todos 1 {"id": 1, "task": "a"}',
        'UPDATE todos 1 {"id": 1, "task": "b"}',
        'UPDATE todos 1 {"id": 1, "task": "c"}',
        "DELETE todos 1 {}",
      ]);
      expect(after[2]?.source).not.toBe(before[1]?.source);
      expect(after[2]?.database).not.toBe(before[1]?.database);
      const everywhere = new Set([...after, ...(await lines(former)).slice(2)].map(({ id }) => id));
      expect(everywhere.size).toBe(5);
    },
  );

  test.each(CAPTURES)("is found after a rename, and after the table is gone (%s)", async (capture) => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    if (capture === "wal") await createSlot(db);
    await port.execute("create table todos (id int primary key, task text)");
    await track(db, "todos", { capture });
    await port.execute("insert into todos values (1, 'a')");
    await port.execute("alter table todos rename to tasks");
    await port.execute("alter table tasks rename column task to title");
    await port.execute("update tasks set title = 'b'");
    await port.execute("drop table tasks");
    if (capture === "wal") await runWorker({ source: database.url, once: true }).finished;
    expect((await lines(database)).map(({ story }) => story)).toEqual([
      'CREATE todos 1 {"id": 1, "task": "a"}',
      'UPDATE tasks 1 {"id": 1, "title": "b"}',
    ]);
  });
});
