import type { PGlite } from "@electric-sql/pglite";
import fc from "fast-check";
import type postgres from "postgres";
import { expect, test } from "vitest";
import * as api from "../src/history/mod.ts";
import type { DatabaseLike } from "../src/database/port.ts";
import { onEachDatabase, onEachServer, type TestDatabase } from "./support/databases.ts";
import {
  BEMI,
  createSlot,
  install,
  runWorker,
  SCHEMA as schema,
  track,
  tracking,
} from "./support/installation.ts";
import { clock } from "./support/moments.ts";
import { TODOS } from "./support/todos.ts";

interface Todo {
  readonly id: number;
  readonly task: string;
  readonly is_completed: boolean;
}

const changes = (db: DatabaseLike, options: api.ChangesOptions = {}): Promise<api.Change<Todo>[]> =>
  api.changes<Todo>(db, { schema, ...options });
const brief = (found: readonly api.Change<object>[]): string[] =>
  found.map((change) => `${change.operation} ${change.primary_key ?? "-"}`);

/** Runs each statement in a transaction of its own, under a context. */
async function within({ port }: TestDatabase, context: object, ...statements: string[]): Promise<void> {
  for (const statement of statements) {
    await port.transaction(async (tx) => {
      await tx.query("select set_config('bemi.context', $1, true)", [JSON.stringify(context)]);
      await tx.execute(statement);
    });
  }
}

onEachDatabase("reading the log", (open) => {
  test("filters and their negations find what they say, page by page in both directions", async () => {
    await using database = await open();
    const { db } = database;
    await tracking(database, TODOS, "todos", "lists");
    await within(
      database,
      { user_id: 1, tags: ["a", "b"] },
      "insert into todos (task) values ('Sleep'), ('Eat')",
      "update todos set is_completed = true where id = 1",
    );
    await within(
      database,
      { user_id: 2 },
      "update todos set id = 9 where id = 2",
      "delete from todos where id = 1",
    );
    await within(database, {}, "insert into lists values (1, 'one')", "truncate todos");

    expect(brief(await changes(db))).toEqual([
      "CREATE 1",
      "CREATE 2",
      "UPDATE 1",
      "UPDATE 9",
      "DELETE 1",
      "CREATE 1",
      "TRUNCATE -",
    ]);
    const found = async (filter: api.ChangesFilter): Promise<string> =>
      brief(await changes(db, filter)).join(", ");
    expect(await found({ context: { user_id: 1 } })).toBe("CREATE 1, CREATE 2, UPDATE 1");
    expect(await found({ context: { tags: ["b"] }, not: { operation: "CREATE" } })).toBe("UPDATE 1");
    expect(await found({ not: { context: { user_id: 1 }, table: "todos" } })).toBe("CREATE 1");
    expect(await found({ before: { task: "Eat" } })).toBe("UPDATE 9");
    expect(await found({ after: { task: "Eat" }, not: { key: "9" } })).toBe("CREATE 2");
    expect(await found({ key: "2" })).toBe("CREATE 2, UPDATE 9");
    expect(await found({ key: ["2", "1"], table: "todos" })).toBe(
      "CREATE 1, CREATE 2, UPDATE 1, UPDATE 9, DELETE 1",
    );
    expect(await found({ operation: ["DELETE", "TRUNCATE"] })).toBe("DELETE 1, TRUNCATE -");
    expect(await found({ operation: [] })).toBe("");
    expect(await found({ changed: "is_completed", operation: "UPDATE" })).toBe("UPDATE 1");
    expect(await found({ changed: ["id", "task"], not: { operation: "CREATE" } })).toBe("UPDATE 9, DELETE 1");
    expect(await found({ table: ["public.lists", "nowhere.todos"] })).toBe("CREATE 1");
    const [one] = await changes(db);
    expect(await found({ transaction: one?.transaction_id ?? "" })).toBe("CREATE 1, CREATE 2");
    expect(await found({ until: one?.committed_at ?? "" })).toBe("");
    expect(await found({ since: one?.committed_at ?? "" })).toContain("CREATE 1, CREATE 2");

    const all = await changes(db);
    for (const limit of [1, 2, 3, 100]) {
      const forth: api.Change<Todo>[] = [];
      for (let after: string | undefined = ""; after !== undefined;) {
        const page: api.Change<Todo>[] = await changes(db, { page: { after, limit } });
        forth.push(...page);
        after = page.at(-1)?.cursor;
      }
      expect(forth).toEqual(all);
      const back: api.Change<Todo>[] = [];
      for (let before: string | undefined, first = true; first || before !== undefined; first = false) {
        const page: api.Change<Todo>[] = await changes(db, { page: { before, limit } });
        back.unshift(...page);
        before = page[0]?.cursor;
      }
      expect(back).toEqual(all);
    }
    // Changes of one time are told apart by their place: a page may end between them.
    expect(new Set(all.slice(0, 2).map((change) => change.committed_at)).size).toBe(1);
    // What vanishes from the JSON would find everything.
    for (
      const context of [{ user_id: undefined }, { app: { user_id: undefined } }, { user_id: () => 1 }, {
        app: { user_id: Symbol() },
      }]
    ) {
      await expect(changes(db, { context })).rejects.toMatchObject({ code: "usage" });
      await expect(changes(db, { not: { context } })).rejects.toMatchObject({ code: "usage" });
      await expect(api.groups(db, { schema, by: "day", after: context })).rejects.toMatchObject({
        code: "usage",
      });
    }
    await expect(changes(db, { operation: ["UPDATE", "INSERT" as never] })).rejects.toMatchObject({
      code: "usage",
      hint: expect.stringContaining("an INSERT is a CREATE") as string,
    });
    await expect(changes(db, { page: { after: "bm9uZQ" } })).rejects.toMatchObject({ code: "usage" });
    await expect(changes(db, { limit: 0 })).rejects.toMatchObject({ code: "usage" });
  });

  test("what is there but undefined is an error, and not everything", async () => {
    await using database = await open();
    const { db } = database;
    await tracking(database, TODOS, "todos");
    const refused = { code: "usage", hint: "Pass a value, or leave it out." };
    for (
      const name of [
        ...["table", "key", "operation", "before", "after", "context", "changed", "transaction"],
        ...["not", "since", "until"],
      ]
    ) {
      for (const value of [undefined, null, [undefined]]) {
        const filter = { table: "todos", [name]: value } as api.ChangesFilter;
        await expect(changes(db, filter), name).rejects.toMatchObject({
          ...refused,
          message: `The filter's ${name} is ${value === null ? "null" : "undefined"}`,
        });
        await expect(api.groups(db, { schema, by: "day", ...filter }), name).rejects.toMatchObject(refused);
        await expect(api.history(db, "todos", "1", { schema, ...filter })).rejects.toMatchObject(refused);
        const mine = api.scoped(db, { schema, table: "todos" });
        await expect(mine.changes(filter), name).rejects.toMatchObject({ code: "usage" });
        if (["not", "since", "until"].includes(name)) continue;
        await expect(changes(db, { not: filter }), name).rejects.toMatchObject(refused);
      }
    }
    const nothing = undefined as unknown as string;
    const { asOf, asOfJson, history } = api;
    for (
      const read of [
        () => history(db, "todos", nothing, { schema }),
        () => history(db, nothing, "1", { schema }),
        () => asOf(db, "todos", new Date(), { schema, key: nothing }),
        () => asOfJson(db, "todos", new Date(), { schema, key: nothing }),
        () => asOf(db, nothing, new Date(), { schema }),
      ]
    ) {
      await expect(read()).rejects.toMatchObject(refused);
    }
    // No moment, or no time, at all.
    for (
      const moment of [nothing, null as never, {} as never, new Date("x"), { before: nothing }, {
        after: "1",
      }]
    ) {
      for (const wait of [undefined, false] as const) {
        const options = { schema, wait };
        for (
          const read of [
            () => asOf(db, "todos", moment, options),
            () => asOfJson(db, "todos", moment, options),
            () => asOf(db, moment, () => Promise.resolve(), options),
          ]
        ) await expect(read()).rejects.toMatchObject({ code: "usage", hint: expect.any(String) });
      }
    }
    await expect(changes(db, { since: new Date("x") })).rejects.toMatchObject({ code: "usage" });
    // What chooses no changes may be undefined.
    expect(
      await changes(db, {
        limit: undefined,
        numbers: undefined,
        page: { after: undefined, limit: undefined },
      }),
    ).toEqual([]);
  });

  test("a table that the log does not know is an error, with the name that was meant", async () => {
    await using database = await open();
    const { db, port } = database;
    await tracking(database, TODOS, "todos", "lists");
    await port.execute("insert into lists values (1, 'one'); drop table lists cascade");
    const unknown = {
      code: "table_missing",
      message: "The log knows no table tods",
      hint: "Did you mean todos?",
    };
    for (
      const read of [
        () => api.history(db, "tods", "1", { schema }),
        () => changes(db, { table: ["todos", "tods"] }),
        () => api.groups(db, { schema, by: "day", table: "tods" }),
      ]
    ) await expect(read()).rejects.toMatchObject(unknown);
    await expect(changes(db, { table: "app.todos" })).rejects.toMatchObject({ code: "table_missing" });
    // Tracked without a change, found by another name, or dropped.
    for (const name of ["todos", "public.todos", '"todos"', "TODOS", "lists", "public.lists"]) {
      expect(await api.history(db, name, "9", { schema }), name).toEqual([]);
    }
    expect(await changes(db, { table: ["todos", "lists"], key: "9" })).toEqual([]);
    // An end user is not told what else there is.
    expect(await api.scoped(db, { schema, row: { id: 1 } }).changes({ table: "tods" })).toEqual([]);
  });

  test("a key may be a number or a bigint, as long as it is exact", async () => {
    await using database = await open();
    const { db, port } = database;
    await tracking(database, "create table todos (id bigint primary key, task text)", "todos");
    const before = await clock(port);
    await port.execute("insert into todos values (1, 'a'), (9007199254740993, 'b')");
    const now = await clock(port);
    for (const [key, text] of [[1, "1"], [9007199254740993n, "9007199254740993"]] as const) {
      expect(brief(await changes(db, { table: "todos", key }))).toEqual([`CREATE ${text}`]);
      expect(brief(await changes(db, { key: [key, "7"] }))).toEqual([`CREATE ${text}`]);
      expect(brief(await api.history<{ task: string }>(db, "todos", key, { schema }))).toEqual([
        `CREATE ${text}`,
      ]);
      expect(await api.asOf(db, "todos", now, { schema, key })).toHaveLength(1);
      const unit = { table: "todos", key, to: before };
      expect((await api.planRevert(db, unit, { schema })).statements).toMatchObject([{ key: text }]);
    }
    expect(await changes(db, { key: 0 })).toEqual([]);
    // Rounded, it would be another row's.
    for (
      const read of [
        () => changes(db, { key: 2 ** 53 }),
        () => api.history(db, "todos", 2 ** 53, { schema }),
        () => api.asOf(db, "todos", now, { schema, key: 2 ** 53 }),
        () => api.planRevert(db, { table: "todos", key: 2 ** 53, to: now }, { schema }),
      ]
    ) await expect(read()).rejects.toMatchObject({ code: "usage", hint: "Pass it as text, or as a bigint." });
  });

  test("numbers and times are exact in text, and microseconds are kept", async () => {
    await using database = await open();
    const { db } = database;
    await tracking(
      database,
      "create table sums (id bigint primary key, v numeric, at timestamptz, doc jsonb)",
      "sums",
    );
    await within(
      database,
      { n: 1 },
      `insert into sums values (9007199254740993, 12345678901234567890.10, '2026-11-01 12:00:00.123456+00',
        '{"a": "1.50 \\" 7", "b": [1.50, -2e-7]}')`,
    );
    const [exact] = await api.changes(db, { schema, numbers: "text", after: '{"id": 9007199254740993}' });
    expect(exact?.after).toMatchObject({
      id: "9007199254740993",
      v: "12345678901234567890.10",
      at: expect.stringContaining(".123456"),
      doc: { a: '1.50 " 7', b: ["1.50", "-0.0000002"] },
    });
    expect(exact?.context.n).toBe("1");
    expect((await api.changesJson(db, { schema, key: "9007199254740993" }))[0]).toContain(
      "12345678901234567890.10",
    );
    const time = await clock(database.port);
    await within(database, {}, "delete from sums");
    expect(await api.asOfJson(db, "sums", time, { schema })).toEqual([
      expect.stringMatching(
        /"id":9007199254740993,"v":12345678901234567890.10,"at":"2026-11-01T12:00:00.123456/,
      ),
    ]);
  });

  test("a row's history goes through its keys, and the table's names, and stays when the table is gone", async () => {
    await using database = await open();
    const { db, port } = database;
    await tracking(database, "create table todos (id int primary key, task text)", "todos");
    await port.execute(
      `insert into todos values (1, 'a'); update todos set id = 2; update todos set task = 'b'`,
    );
    await port.execute(`insert into todos values (1, 'another'); alter table todos rename to tasks`);
    await port.execute(
      `update tasks set id = 3 where id = 2; alter table tasks drop column task; delete from tasks where id = 3`,
    );
    const story = ["CREATE 1", "UPDATE 2", "UPDATE 2", "UPDATE 3", "DELETE 3"];
    const seen = async (table: string, key: string) => brief(await api.history(db, table, key, { schema }));
    expect(await seen("tasks", "3")).toEqual(story);
    expect(await seen("public.tasks", "2")).toEqual(story);
    expect(await seen("tasks", "1")).toEqual([
      ...story.slice(0, 2),
      "UPDATE 2",
      "CREATE 1",
      ...story.slice(3),
    ]);
    // Another table of the old name has a history of its own.
    await port.execute("create table todos (id int primary key)");
    await track(db, "todos");
    await port.execute("insert into todos values (3); truncate todos");
    expect(await seen("todos", "3")).toEqual(["CREATE 3", "TRUNCATE -"]);
    expect(await seen("tasks", "3")).toEqual(story);
    await port.execute("drop table tasks");
    expect(await seen("tasks", "3")).toEqual(story);
    await expect(seen("nowhere", "3")).rejects.toMatchObject({ code: "table_missing" });
  });

  test("a row that changed its key hundreds of times, beside one that did so too, has its history at once", async () => {
    await using database = await open();
    const { port } = database;
    await tracking(database, "create table todos (id int primary key, task text)", "todos");
    await port.execute(`insert into todos values (1, 'a'), (10, 'b');
      do $$ begin
        for i in 1..150 loop
          update todos set id = 2 where id = 1; update todos set id = 1 where id = 10;
          update todos set id = 10 where id = 1; update todos set id = 1 where id = 2;
        end loop;
      end $$;
      update todos set id = 3 where id = 1; delete from todos`);
    const found = await port.transaction(async (tx) => {
      await tx.execute("set local statement_timeout = '10s'");
      return await tx.query(
        `select key, count(*)::integer as n from (values ('1'), ('3')) as k (key), ${BEMI}.history('todos', key)
        group by 1 order by 1`,
      );
    });
    // Both had the key 1; one alone the key 3.
    expect(found).toEqual([{ key: "1", n: 605 }, { key: "3", n: 303 }]);
  });

  test("a table that is called what SQL would not call it is found by its name", async () => {
    await using database = await open();
    const { db, port } = database;
    await tracking(
      database,
      `create table "my todos" (id int primary key); create table "a.b.c.d" (id int primary key)`,
      `"my todos"`,
      `"a.b.c.d"`,
    );
    await port.execute(`insert into "my todos" values (1); insert into "a.b.c.d" values (1)`);
    const names = [`"my todos"`, "my todos", `public."my todos"`, "public.my todos", `"a.b.c.d"`, "a.b.c.d"];
    for (const name of names) {
      expect(brief(await api.history(db, name, "1", { schema })), name).toEqual(["CREATE 1"]);
    }
    await port.execute(`drop table "my todos"; drop table "a.b.c.d"`);
    for (const name of names) {
      expect(brief(await api.history(db, name, "1", { schema })), name).toEqual(["CREATE 1"]);
    }
  });

  test("a server that was set back to a copy of its files writes on after what it wrote, whatever its LSNs", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    await port.execute(
      `insert into ${BEMI}.sources (system_identifier, timeline, database, capture, incarnation)
      values ('9', 1, 'app', 'wal', 0), ('9', 1, 'app', 'wal', 1);
      insert into ${BEMI}.changes (id, database, schema, "table", primary_key, operation, after, committed_at, queued_at,
        transaction_id, position, source_id, commit_lsn, transaction_index)
      select gen_random_uuid(), 'app', 'public', 'todos', '1', c.operation, '{"id": 1}', c.at::timestamptz, now(), 1, 0, s.id, c.lsn::pg_lsn, 0
      from ${BEMI}.sources s join (values (0, 'CREATE', '2026-11-01 10:00+00', '0/9000000'), (1, 'UPDATE', '2026-11-01 12:00+00', '0/5000000'))
        as c (incarnation, operation, at, lsn) on c.incarnation = s.incarnation and s.system_identifier = '9'`,
    );
    const found = await port.query(`select operation from ${BEMI}.history('todos', '1')`);
    expect(found).toEqual([{ operation: "CREATE" }, { operation: "UPDATE" }]);
  });

  test("a row's history is in order, page by page, whichever way its table was captured at the time", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    await port.execute(
      `insert into ${BEMI}.sources (system_identifier, timeline, database, capture)
      values ('9', 1, 'app', 'trigger'), ('9', 1, 'app', 'wal');
      insert into ${BEMI}.changes (id, database, schema, "table", primary_key, operation, after, committed_at, queued_at,
        transaction_id, position, source_id, commit_lsn, transaction_index)
      select gen_random_uuid(), 'app', 'public', 'todos', '1', c.operation, '{"id": 1}', '2026-11-01', now(), 1, 0, s.id, c.lsn::pg_lsn, 0
      from ${BEMI}.sources s join (values ('trigger', 'CREATE', '0/1'), ('wal', 'UPDATE', '0/2'), ('trigger', 'DELETE', '0/3'))
        as c (capture, operation, lsn) on c.capture = s.capture and s.system_identifier = '9'`,
    );
    const history = (page: api.Page = {}) => api.history(db, "todos", "1", { schema, page });
    const all = await history();
    expect(brief(all)).toEqual(["CREATE 1", "UPDATE 1", "DELETE 1"]);
    expect(await history({ limit: 1 })).toEqual(all.slice(2));
    expect(await history({ after: all[0]?.cursor, limit: 1 })).toEqual(all.slice(1, 2));
    expect(await history({ before: all[2]?.cursor })).toEqual(all.slice(0, 2));
  });

  test("a key of several columns is found however its JSON is spelled, and one that only looks like it as it is", async () => {
    await using database = await open();
    const { db, port } = database;
    await tracking(
      database,
      "create table items (list bigint, name text, n int, primary key (list, name)); create table words (word text primary key)",
      "items",
      "words",
    );
    await port.execute(
      `insert into items values (9007199254740993, 'a "b"', 1), (9007199254740992, 'a "b"', 2);
      insert into words values ('[1,2]'), ('[1, 2]')`,
    );
    await port.execute("update items set n = n + 10");
    const now = await clock(port);
    const key = '[9007199254740993,"a \\u0022b\\"" ]';
    expect(brief(await api.history(db, "items", key, { schema }))).toHaveLength(2);
    expect(await changes(db, { table: "items", key })).toHaveLength(2);
    expect(await changes(db, { key: [key, '[9007199254740992, "a \\"b\\""]'] })).toHaveLength(4);
    expect(await api.scoped(db, { table: "items", key, schema }).changes()).toHaveLength(2);
    expect(await api.asOf(db, "items", now, { schema, key })).toMatchObject([{ n: 11 }]);
    const [last] = await changes(db, { table: "items", key, limit: 1 });
    expect(await api.asOf(db, "items", { before: last?.id ?? "" }, { schema, key })).toMatchObject([{
      n: 1,
    }]);
    for (const word of ["[1,2]", "[1, 2]"]) {
      for (
        const found of [
          await api.history(db, "words", word, { schema }),
          await changes(db, { key: word }),
          await api.scoped(db, { key: word, schema }).changes(),
        ]
      ) {
        expect(found.map((change) => change.primary_key)).toEqual([word]);
      }
      expect(await api.asOf(db, "words", now, { schema, key: word })).toEqual([{ word }]);
    }
  });

  test("diff is the same in SQL and TypeScript", async () => {
    await using database = await open();
    await install(database.db);
    const value = fc.jsonValue({ maxDepth: 2, noUnicodeString: true } as never).map((found) =>
      // What jsonb cannot hold is not compared.
      JSON.parse(
        JSON.stringify(found ?? null).replaceAll("-0", "0").replace(/\\u0000|\\ud[89a-f]../gi, ""),
      ) as unknown
    );
    const row = fc.dictionary(fc.constantFrom("a", "b", "c"), value);
    await fc.assert(
      fc.asyncProperty(row, row, async (before, after) => {
        const [found] = await database.port.query<{ diff: string }>(
          `select ${BEMI}.diff($1::text::jsonb, $2::text::jsonb)::text as diff`,
          [JSON.stringify(before), JSON.stringify(after)],
        );
        expect(JSON.parse(found?.diff ?? "")).toEqual(api.diff(before, after));
      }),
      { numRuns: 50 },
    );
    const odd = api.diff<object>(JSON.parse('{"__proto__": 1}') as object, {});
    expect(Object.entries(odd)).toEqual([["__proto__", { old: 1 }]]);
  });

  test("groups count by transaction, context and time, whatever the filter", async () => {
    await using database = await open();
    const { db } = database;
    await tracking(database, TODOS, "todos", "lists");
    await within(
      database,
      { user_id: 7, app: { "a.b": "x" } },
      "insert into lists values (1, 'one'); insert into todos (task) values ('a'), ('b')",
    );
    await within(database, { user_id: 8 }, "delete from todos");
    const groups = (options: api.GroupsOptions) => api.groups(db, { schema, ...options });
    expect((await groups({ by: { context: "user_id" } })).map(({ key, changes, operations, tables }) => ({
      key,
      changes,
      operations,
      tables,
    }))).toEqual([
      { key: "7", changes: 3, operations: { CREATE: 3 }, tables: ["lists", "todos"] },
      { key: "8", changes: 2, operations: { DELETE: 2 }, tables: ["todos"] },
    ]);
    expect((await groups({ by: { context: ["app", "a.b"] } })).map((group) => group.key).sort()).toEqual(
      ["x", null].sort(),
    );
    expect((await groups({ by: "transaction" })).map((group) => group.changes)).toEqual([2, 3]);
    expect((await groups({ by: "table", operation: "CREATE" })).map((group) => [group.key, group.changes]))
      .toEqual([["public.todos", 2], ["public.lists", 1]]);
    await database.port.execute('create table "a\nb" (id int primary key)');
    await track(db, '"a\nb"');
    await within(database, { user_id: 9 }, 'insert into "a\nb" values (1)');
    expect((await groups({ by: "operation", context: { user_id: 9 } }))[0]?.tables).toEqual(["a\nb"]);
    const [day] = await groups({ by: "day", timeZone: "Asia/Kathmandu", limit: 1 });
    expect(day?.key).toMatch(/T18:15:00Z$/);
    await expect(groups({ by: "decade" as never })).rejects.toMatchObject({ code: "usage" });
  });

  test("nothing that a filter says widens a scope, and what it hides cannot be asked for", async () => {
    await using database = await open();
    const { db } = database;
    await tracking(
      database,
      "create table notes (id int primary key, tenant int, body text, secret text)",
      "notes",
    );
    await within(
      database,
      { user_id: 1 },
      "insert into notes values (1, 1, 'mine', 's'), (2, 2, 'theirs', 's')",
      "update notes set body = body || '!'",
      "update notes set tenant = 2 where id = 1",
      "truncate notes",
    );
    const mine = api.scoped(db, {
      table: "notes",
      row: { tenant: 1 },
      columns: ["id", "body"],
      contextKeys: ["user_id"],
      schema,
    });
    const story = [
      { key: "1", before: {}, after: { id: 1, body: "mine" }, context: { user_id: 1 } },
      { key: "1", before: { id: 1, body: "mine" }, after: { id: 1, body: "mine!" }, context: { user_id: 1 } },
    ];
    const seen = async (filter: object) =>
      (await mine.changes(filter)).map(({ primary_key, before, after, context }) => ({
        key: primary_key,
        before,
        after,
        context,
      }));
    expect(await seen({})).toEqual(story);
    const row = fc.record({
      key: fc.constantFrom("1", "2", ["1", "2"]),
      table: fc.constantFrom("notes", "other"),
      context: fc.constant({ user_id: 1 }),
      not: fc.constantFrom({ key: "9" }, { operation: "DELETE" as const }),
      schema: fc.constant("elsewhere"),
      row: fc.constant({ tenant: 2 }),
      columns: fc.constant(["secret"]),
    }, { requiredKeys: [] });
    await fc.assert(
      fc.asyncProperty(row, async (filter) => {
        for (const change of await seen(filter)) expect(story).toContainEqual(change);
      }),
      { numRuns: 20 },
    );
    for (
      const hidden of [{ context: { SQL: "x" } }, { after: { secret: "s" } }, { changed: "secret" }, {
        not: { before: '{"tenant": 2}' },
      }]
    ) {
      await expect(mine.changes(hidden)).rejects.toMatchObject({ code: "usage" });
    }
    await expect(mine.groups({ by: { context: ["db", "user"] } })).rejects.toMatchObject({ code: "usage" });
    expect((await mine.groups({ by: { context: "user_id" } })).map((group) => [group.key, group.changes]))
      .toEqual([["1", 2]]);
    // Nobody who is signed in: a tenant, or a key, that is undefined restricts nothing.
    for (
      const nothing of [{ columns: ["id"] }, { row: {} }, { context: "{}" }, { row: { tenant: undefined } }]
    ) {
      expect(() => api.scoped(db, nothing)).toThrow(/restricts nothing|"tenant" is undefined/);
    }
    for (const part of ["table", "key", "row", "context", "transaction", "columns"]) {
      expect(() => api.scoped(db, { table: "notes", row: { tenant: 1 }, [part]: undefined })).toThrow(
        `The scope's ${part} is undefined`,
      );
    }
  });
});

onEachDatabase("the past", (open, server) => {
  test("the application's own queries run in it, read-only, by their indexes, and leave no trace", async () => {
    await using database = await open();
    const { db, port } = database;
    await tracking(database, `${TODOS} create index on todos (lower(task))`, "todos", "lists");
    await port.execute(
      `insert into lists values (1, 'one'); insert into todos (task, list_id) select 'Task ' || i, 1 from generate_series(1, 500) i`,
    );
    const time = await clock(database.port);
    await port.execute("delete from lists; insert into todos (task) values ('now')");
    const query =
      `select l.title, t.*, count(*) over () as n from todos t join lists l on l.id = t.list_id where t.id = 7 group by t.id, l.title`;
    const run = async (past: unknown, sql: string): Promise<unknown[]> =>
      server === "PGlite"
        ? (await (past as PGlite).query(sql)).rows
        : [...await (past as postgres.Sql).unsafe(sql)];
    const seen = await api.asOf(db as PGlite, time, async (past) => ({
      row: await run(past, query),
      plan: JSON.stringify(await run(past, "explain select * from todos where lower(task) = 'task 9'")),
      all: await run(past, "select from todos"),
    }), { schema });
    expect(seen.row).toMatchObject([{ title: "one", task: "Task 7" }]);
    expect(seen.all).toHaveLength(500);
    expect(seen.plan).toContain("Index");
    for (
      const write of ["delete from todos", "insert into lists values (2, 'two')", "create table t (i int)"]
    ) {
      await expect(api.asOf(db as PGlite, time, (past) => run(past, write), { schema })).rejects
        .toMatchObject({ code: "25006" });
    }
    expect(await run(db, "select * from todos")).toMatchObject([{ task: "now" }]);
    expect(
      (await api.asOf(db as PGlite, time, (past) => run(past, "select from todos"), {
        schema,
        tables: ["lists"],
      })).length,
    ).toBe(1);
  });

  test("an index that is called like a clause of its definition is copied, and its name not run", async () => {
    await using database = await open();
    const { db, port } = database;
    await tracking(
      database,
      `create schema "a USING b"; create table "a USING b"."c ""USING d" (id int primary key, n int);
      create unique index "n"" USING btree (id); create table stolen (); --" on "a USING b"."c ""USING d" (n) where n > 0;
      create table plain (id int primary key, n int);
      create index "n USING btree (id); create table stolen (); --" on plain (n)`,
      `"a USING b"."c ""USING d"`,
      "plain",
    );
    await port.execute(
      `insert into "a USING b"."c ""USING d" values (1, 2); insert into plain values (1, 3)`,
    );
    const time = await clock(port);
    const query = `select p.n + c.n as n from plain p join "c ""USING d" c using (id)`;
    const rows = await api.asOf(
      db as PGlite,
      time,
      async (past) =>
        server === "PGlite"
          ? (await past.query(query)).rows
          : [...await (past as unknown as postgres.Sql).unsafe(query)],
      { schema },
    );
    expect(rows).toEqual([{ n: 5 }]);
    expect(await port.query("select to_regclass('stolen')::text as name")).toEqual([{ name: null }]);
  });

  test("what the log does not know is an error that says from when on it does", async () => {
    await using database = await open();
    const { db, port } = database;
    await tracking(
      database,
      "create table papers (id int primary key, body json); insert into papers values (1, '1')",
      "papers",
    );
    const asOf = (time: string, table = "papers") => api.asOf<{ id: number }>(db, table, time, { schema });
    const start = await clock(database.port);
    expect(await asOf(start)).toHaveLength(1);
    await expect(asOf("2020-01-01")).rejects.toMatchObject({
      code: "history_unknown",
      hint: expect.stringMatching(/^They are known from 20/),
    });
    await port.execute(`insert into papers values (2, '"\\u0000"')`);
    await port.execute(`insert into papers values (3, '3')`);
    await expect(asOf(start)).rejects.toMatchObject({
      code: "history_unknown",
      message: expect.stringMatching(/a change was not captured \(SQLSTATE 22P05\) at/),
    });
    // From the gap on it is known again, by going back from the rows that are there.
    await port.execute("update papers set body = '2' where id = 2");
    expect((await asOf(await clock(database.port))).map((row) => row.id).sort()).toEqual([1, 2, 3]);
    await expect(asOf(start, "lists")).rejects.toMatchObject({ code: "table_missing" });
    await port.execute("create table lists (id int primary key)");
    await expect(asOf(start, "lists")).rejects.toMatchObject({ code: "history_unknown" });
    await expect(api.asOf(db, "papers", { after: "00000000-0000-7000-8000-000000000000" }, { schema }))
      .rejects.toMatchObject({ code: "not_found" });
  });
});

const PARTS = `create table parts (id int, k int, primary key (id, k)) partition by list (k);
  create table parts_1 partition of parts for values in (1);
  create table parts_2 partition of parts for values in (2)`;

onEachServer("the past of partitioned tables", (open) => {
  test.each(["trigger", "wal"] as const)(
    "by %s: a partition truncated by itself ends what is known, its root's TRUNCATE begins anew",
    async (capture) => {
      await using database = await open();
      const { db, port, url } = database;
      await install(db);
      if (capture === "wal") await createSlot(db);
      await port.execute(PARTS);
      await track(db, "parts", { capture });
      const catchUp = () => capture === "wal" ? runWorker({ source: url, once: true }).finished : undefined;
      const ids = async (time: string) =>
        (await api.asOf<{ id: number }>(db, "parts", time, { schema, wait: false })).map((row) => row.id)
          .sort();
      await port.execute("insert into parts values (1, 1), (2, 2), (3, 1)");
      await port.execute("update parts set k = 2 where id = 1");
      const full = await clock(database.port);
      await port.execute("truncate parts_1");
      const part = await clock(database.port);
      await catchUp();
      expect(await ids(full)).toEqual([1, 2, 3]);
      if (capture === "trigger") expect(await ids(part)).toEqual([1, 2]);
      else {await expect(ids(part)).rejects.toMatchObject({
          code: "history_unknown",
          message: expect.stringContaining("a partition was truncated by itself"),
        });}
      await port.execute("insert into parts values (4, 1); truncate parts");
      await port.execute("insert into parts values (5, 1)");
      const last = await clock(database.port);
      await port.execute("delete from parts");
      await catchUp();
      expect(await ids(full)).toEqual([1, 2, 3]);
      expect(await ids(last)).toEqual([5]);
      expect(brief(await changes(db, { operation: "TRUNCATE" }))).toHaveLength(2);
    },
  );
});

onEachServer("as of now, from the WAL", (open) => {
  test("waits for the worker, or says how far behind it is", async () => {
    await using database = await open();
    const { db, port, url } = database;
    await install(db);
    await createSlot(db);
    await port.execute(TODOS);
    await track(db, "todos", { capture: "wal" });
    await port.execute("insert into todos (task) values ('early')");
    await runWorker({ source: url, once: true }).finished;
    await port.execute("insert into todos (task) values ('late')");
    const now = await clock(database.port);
    await expect(api.asOf(db, "todos", now, { schema, wait: 1 })).rejects.toMatchObject({
      code: "log_behind",
      message: expect.stringMatching(/\d+ bytes of WAL/),
    });
    expect(await api.asOf(db, "todos", now, { schema, wait: false })).toHaveLength(1);
    const worker = runWorker({ source: url });
    try {
      expect(await api.asOf(db, "todos", now, { schema, wait: 60_000 })).toHaveLength(2);
    } finally {
      await worker.stop();
    }
  });

  test("without a slot says that nothing reads the WAL, unless what is in the log will do", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    await createSlot(db);
    await port.execute(TODOS);
    await track(db, "todos", { capture: "wal" });
    await runWorker({ source: database.url, once: true }).finished;
    await port.execute(`select pg_drop_replication_slot(${BEMI}.slot_name())`);
    const now = await clock(database.port);
    const refused = { code: "log_behind", hint: expect.stringContaining("bemi worker") };
    await expect(api.asOf(db, "todos", now, { schema })).rejects.toMatchObject(refused);
    expect(await api.asOf(db, "todos", now, { schema, wait: false })).toEqual([]);
    await expect(api.planRevert(db, { context: { request: 1 } }, { schema })).rejects.toMatchObject(refused);
    await expect(api.revert(db, { context: { request: 1 } }, { schema })).rejects.toMatchObject(refused);
  });
});
