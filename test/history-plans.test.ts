import type postgres from "postgres";
import { expect, inject, test } from "vitest";
import { readStatement } from "../src/history/changes.ts";
import { binder, type ChangesFilter, filterConditions, type Page } from "../src/history/filter.ts";
import { groupsStatement } from "../src/history/groups.ts";
import * as api from "../src/history/mod.ts";
import { inSchema } from "../src/install/schema.ts";
import { onEachServer } from "./support/databases.ts";
import { BEMI, install, SCHEMA as schema } from "./support/installation.ts";
import { fillLog } from "./support/million.ts";

const newest = inject("servers").map((server) => server.version).sort().at(-1);

const seqScans = (plan: string): (string | undefined)[] =>
  [...plan.matchAll(/"Node Type":"Seq Scan"[^{}]*?"Relation Name":"(\w+)"/g)].map((match) => match[1]);

onEachServer("a log of a million changes", (open, server) => {
  test.runIf(server === newest)("every read has an index behind it", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    const { middle } = await fillLog(db, port, { schema, changes: 1_000_000, keys: 100_000, days: 90 });
    const [last] = await api.changes(db, { schema, limit: 1 });
    const until = (await port.query<{ t: string }>(
      `select ('${middle}'::timestamptz + interval '1 minute')::text as t`,
    ))[0]?.t;

    const [{ largest } = { largest: "" }] = await port.query<{ largest: string }>(
      `select c.relname as largest from pg_inherits i join pg_class c on c.oid = i.inhrelid
      where i.inhparent = '${BEMI}.changes'::regclass order by c.relpages desc limit 1`,
    );
    const planOf = async (text: string, parameters: string[]): Promise<string> =>
      JSON.stringify(await db.unsafe(`explain (format json) ${text}`, parameters));
    const reads: [string, ChangesFilter, Page, RegExp][] = [
      ["a context", { context: { user_id: 7 } }, {}, /context_idx/],
      ["a row", { table: "todos", key: "77" }, {}, /hashtextextended/],
      [
        "a row's changed column",
        { table: "todos", key: "77", changed: "n", not: { operation: "CREATE" } },
        {},
        /hashtextextended/,
      ],
      ["a time", { since: middle, until: until ?? "" }, {}, /committed_at_idx/],
      ["a transaction", { transaction: last?.transaction_id ?? "" }, {}, /transaction_id_idx/],
      ["the latest page", {}, { limit: 50 }, /source_id_commit_lsn_transaction_index/],
      [
        "the next page",
        { operation: "UPDATE" },
        { after: "", limit: 50 },
        /source_id_commit_lsn_transaction_index/,
      ],
      [
        "a page before",
        { table: "todos" },
        { before: last?.cursor, limit: 50 },
        /source_id_commit_lsn_transaction_index/,
      ],
    ];
    for (const [name, filter, page, index] of reads) {
      const parameters: string[] = [];
      const bind = binder(parameters);
      const read = readStatement({
        schema,
        from: '"bemi".changes',
        conditions: filterConditions(filter, bind),
        page,
        bind,
        parameters,
      });
      const plan = await planOf(read.text, read.parameters);
      expect(plan, name).toMatch(index);
      expect(seqScans(plan), name).not.toContain(largest);
    }
    // Each grouping, by each filter that an index serves.
    const filters: [ChangesFilter, RegExp][] = [
      [{ context: { user_id: 7 } }, /context_idx/],
      [{ since: middle, until: until ?? "" }, /committed_at_idx/],
      [{ table: "todos", key: "77" }, /hashtextextended/],
      [{ transaction: last?.transaction_id ?? "" }, /transaction_id_idx/],
    ];
    const grouped = ["transaction", "hour", "day", { context: "request_id" }, {
      context: "user_id",
    }] as const;
    for (const [filter, index] of filters) {
      for (const by of grouped) {
        const { text, parameters } = groupsStatement({ by, ...filter });
        const plan = await planOf(inSchema(schema, text), parameters);
        expect(plan, JSON.stringify([by, filter])).toMatch(index);
        expect(seqScans(plan), JSON.stringify([by, filter])).not.toContain(largest);
      }
    }

    // What functions run within is seen by what it read.
    const rowsRead = async (fn: (tx: postgres.TransactionSql) => Promise<unknown>): Promise<number> =>
      await db.begin(async (tx) => {
        const count = async (): Promise<number> => {
          const [row] = await tx.unsafe(
            `select coalesce(sum(s.seq_tup_read + s.idx_tup_fetch), 0)::integer as all
            from pg_stat_xact_user_tables s join pg_inherits i on i.inhrelid = s.relid where i.inhparent = '${BEMI}.changes'::regclass`,
          );
          return Number(row?.all);
        };
        // What earlier transactions read may not have been handed in yet.
        const before = await count();
        await fn(tx);
        return await count() - before;
      }) as number;
    expect(await rowsRead((tx) => tx.unsafe(`select * from ${BEMI}.history('todos', '77')`))).toBeLessThan(
      200,
    );
    expect(await rowsRead((tx) => tx.unsafe(`select * from ${BEMI}.as_of(null::todos, '${middle}', '77')`)))
      .toBeLessThan(200);
    expect(await rowsRead((tx) => tx.unsafe(`select * from ${BEMI}.as_of(null::todos, '${middle}')`)))
      .toBeLessThan(2_500_000);

    const [row] = await api.asOf<{ n: string }>(db, "todos", middle, { schema, key: "1" });
    expect(row?.n).toBe("500000");
    const rows = await api.asOf<{ id: string; n: string }>(db, "todos", middle, { schema });
    expect(rows).toHaveLength(100_000);
    expect(rows.every(({ id, n }) => Number(n) === (id === "1" ? 500_000 : 400_000 + Number(id) - 1))).toBe(
      true,
    );
    expect(await api.history(db, "todos", "77", { schema })).toHaveLength(10);
    expect(
      await rowsRead((tx) =>
        api.planRevert(tx, { context: { user_id: 77 } }, { schema, onConflict: "force" })
      ),
    )
      .toBeLessThan(10_000);

    // In the log of another database the table is known by its name alone.
    expect(
      await rowsRead(async (tx) => {
        await tx.unsafe(
          `savepoint known; update ${BEMI}.tables set relation = null; delete from ${BEMI}.table_names`,
        );
        for (const name of ["todos", "public.todos", "other.todos"]) {
          expect(await api.history(tx, name, "77", { schema })).toHaveLength(name === "other.todos" ? 0 : 10);
        }
        await tx.unsafe("rollback to known");
      }),
    ).toBeLessThan(200);

    // By now otherwise called, its last change alone does not tell.
    await port.execute("alter table todos rename to tasks; alter table tasks rename column task to title");
    expect(await rowsRead((tx) => tx.unsafe(`select * from ${BEMI}.as_of(null::tasks, '${middle}', '77')`)))
      .toBeLessThan(200);
    const past = await api.asOf(
      db,
      middle,
      async (past) => [
        JSON.stringify(await past.unsafe("explain (format json) select * from tasks where id = 77")),
        await past.unsafe("select title, n::text from tasks where id = 77"),
      ],
      { schema },
    );
    expect(past).toEqual([
      expect.stringMatching(/"Index Scan"|"Bitmap Index Scan"/),
      [{ title: "Task 77", n: "400076" }],
    ]);
  }, 600_000);
});
