import pg from "pg";
import { expect, test } from "vitest";
import { changes, groups, planRevert, revert } from "../src/history/mod.ts";
import { onEachServer } from "./support/databases.ts";
import { BEMI, SCHEMA as schema } from "./support/installation.ts";
import { onEachCapture, reverting } from "./support/reverting.ts";

onEachServer("reverting through pg", (open) => {
  test.each(["Pool", "Client"] as const)("a %s, which is as it was also after a conflict", async (kind) => {
    await using db = await reverting(await open(), "trigger");
    await db.track("create table todos (id int primary key, task text)", ["todos"]);
    await db.as({}, "insert into todos values (1, 'a'), (2, 'b')");
    await db.as({ undo: true }, "update todos set task = 'c' where id = 1; delete from todos where id = 2");
    const connectionString = db.database.url;
    const client = kind === "Pool"
      ? new pg.Pool({ connectionString, max: 1 })
      : new pg.Client({ connectionString });
    if (client instanceof pg.Client) await client.connect();
    try {
      const unit = { context: { undo: true } };
      expect(await planRevert(client, unit, { schema })).toMatchObject({ changes: 2, conflicts: [] });
      await db.execute("update todos set task = 'other' where id = 1");
      await expect(revert(client, unit, { schema })).rejects.toMatchObject({ code: "conflict" });
      expect((await client.query("select * from todos")).rows).toEqual([{ id: 1, task: "other" }]);
      await db.execute("update todos set task = 'c' where id = 1");
      expect((await revert(client, unit, { schema })).statements).toHaveLength(2);
      expect((await client.query("select * from todos order by id")).rows).toEqual([
        { id: 1, task: "a" },
        { id: 2, task: "b" },
      ]);
      expect(
        (await client.query(
          "select current_setting('bemi.context', true) as c, pg_current_xact_id_if_assigned() as x",
        ))
          .rows,
      ).toEqual([{ c: expect.toSatisfy((c: unknown) => c === null || c === ""), x: null }]);
    } finally {
      await client.end();
    }
  });
});

onEachCapture("reverting", (open) => {
  test("a transaction by its source and an LSN, all of it", async () => {
    await using db = await open();
    await db.track("create table todos (id int primary key, task text)", ["todos"]);
    await db.as({ step: 1 }, "insert into todos values (1, 'a')");
    await db.as({ step: 2 }, "update todos set task = 'b'; insert into todos values (2, 'c')");
    await db.plan({ context: { nothing: true } });
    const named = await db.database.port.query<{ source: number; lsn: string }>(
      `select distinct source_id as source, commit_lsn::text as lsn from ${BEMI}.changes where context @> '{"step": 2}'`,
    );
    const { source = 0, lsn: commitLsn = "" } = named.at(-1) ?? {};
    expect(named).toHaveLength(db.capture === "wal" ? 1 : 2);
    for (const { lsn } of named) {
      expect(await db.plan({ transaction: { source, commitLsn: lsn } })).toMatchObject({ changes: 2 });
    }
    expect(await db.plan({ transaction: { source, commitLsn } })).toMatchObject({
      changes: 2,
      conflicts: [],
    });
    const [group] = await groups(db.database.db, { by: "transaction", context: { step: 2 }, schema });
    const key = group?.key ?? "";
    expect(key).toMatch(db.capture === "wal" ? /^\d+\/[\dA-F]+\/[\dA-F]+$/ : /^\d+\/\d+$/);
    expect(await db.plan({ transaction: key })).toMatchObject({ changes: 2, conflicts: [] });
    expect(await changes(db.database.db, { transaction: key, schema })).toHaveLength(2);
    await expect(changes(db.database.db, { transaction: "yesterday", schema })).rejects.toMatchObject({
      code: "usage",
    });
    await db.revert({ transaction: { source: String(source), commitLsn: commitLsn.toLowerCase() } });
    expect(await db.rows("todos")).toEqual(['{"id": 1, "task": "a"}']);
    await expect(db.plan({ transaction: { source, commitLsn: "0/1" } })).rejects.toMatchObject({
      code: "not_found",
    });
  });

  test("a number that is also a transaction's of the former server is refused, however that was captured", async () => {
    await using db = await open();
    const { port } = db.database;
    await db.track("create table todos (id int primary key)", ["todos"]);
    await db.as({}, "insert into todos values (1), (2)");
    await db.plan({ context: { nothing: true } });
    await port.execute(
      `insert into ${BEMI}.sources (system_identifier, timeline, database, capture)
      values ('1', 1, 'former', '${db.capture === "wal" ? "trigger" : "wal"}');
      insert into ${BEMI}.changes (id, database, schema, "table", primary_key, operation, after, committed_at, queued_at,
        transaction_id, position, source_id, commit_lsn, transaction_index)
      select gen_random_uuid(), 'former', c.schema, c."table", c.primary_key, c.operation, c.after, c.committed_at, now(),
        c.transaction_id, 0, s.id, c.commit_lsn, 0
      from ${BEMI}.changes c, ${BEMI}.sources s where c.primary_key = '2' and s.system_identifier = '1'`,
    );
    const [change] = await changes(db.database.db, { table: "todos", schema });
    await expect(db.plan({ transaction: change?.transaction_id ?? "" })).rejects.toMatchObject({
      message: "Several transactions of the log have this number",
    });
  });

  test("a transaction by the server's number, of which the WAL has 32 bits", async () => {
    await using db = await open();
    await db.track("create table todos (id int primary key)", ["todos"]);
    await db.as({}, "insert into todos values (1)");
    await db.plan({ context: { nothing: true } });
    const [change] = await changes(db.database.db, { table: "todos", schema });
    const plan = db.plan({ transaction: 2n ** 32n + BigInt(change?.transaction_id ?? 0) });
    if (db.capture === "wal") expect(await plan).toMatchObject({ changes: 1, conflicts: [] });
    else await expect(plan).rejects.toMatchObject({ code: "not_found" });
  });

  test("a column that was renamed gets its value back, and a table that was is a conflict until it has its name back", async () => {
    await using db = await open();
    await db.track("create table todos (id int primary key, task text, n int)", ["todos"]);
    await db.as({}, "insert into todos values (1, 'a', 1), (2, 'b', 2)");
    await db.as({ undo: true }, "update todos set task = 'c' where id = 1; delete from todos where id = 2");
    await db.plan({ context: { undo: true } });
    const unit = { context: { undo: true } };
    await db.execute("alter table todos rename task to title");
    expect(await db.plan(unit)).toMatchObject({
      conflicts: [],
      statements: [{ operation: "UPDATE", columns: { title: '"a"' } }, {
        operation: "INSERT",
        columns: { id: "2", title: '"b"', n: "2" },
      }],
    });
    await db.execute("alter table todos rename title to task; alter table todos rename to chores");
    expect((await db.plan(unit)).conflicts).toMatchObject([
      {
        kind: "table_gone",
        table: "todos",
        message: "public.todos is called public.chores by now",
        canForce: false,
      },
    ]);
    await expect(db.revert(unit)).rejects.toMatchObject({ code: "conflict" });
    await db.execute("alter table chores rename to todos");
    await db.revert(unit);
    expect(await db.rows("todos")).toEqual([
      '{"n": 1, "id": 1, "task": "a"}',
      '{"n": 2, "id": 2, "task": "b"}',
    ]);
  });
});
