import Cursor from "pg-cursor";
import pg from "pg";
import QueryStream from "pg-query-stream";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { currentContext, mergeContext, onWarning, withContext } from "../mod.ts";
import { withBemi } from "../src/adapters/pg.ts";
import { install, track } from "./support/installation.ts";
import { expectIsolation } from "./support/isolation.ts";
import { overPool } from "./support/requests.ts";
import { onEachServer, type TestDatabase } from "./support/databases.ts";
import { seen, TODOS } from "./support/todos.ts";

const warnings: string[] = [];
onWarning((message) => void warnings.push(message));

const unhandled: unknown[] = [];
const note = (error: unknown): void => void unhandled.push(error);
beforeAll(() => void process.on("unhandledRejection", note).on("uncaughtException", note));
afterAll(() => {
  process.off("unhandledRejection", note).off("uncaughtException", note);
  expect(unhandled).toEqual([]);
});

type Open = () => Promise<TestDatabase & { url: string }>;

interface Setup extends AsyncDisposable {
  readonly database: TestDatabase & { url: string };
  readonly bare: pg.Pool;
  readonly pool: pg.Pool;
  /** `task user` of each change, in order. */
  story(): Promise<string[]>;
}

async function setUp(open: Open, options: pg.PoolConfig = {}): Promise<Setup> {
  const database = await open();
  await install(database.db);
  await database.port.execute(TODOS);
  await track(database.db, "todos");
  const bare = new pg.Pool({ connectionString: database.url, max: 4, ...options });
  bare.on("error", () => {}).on("connect", (client) => client.on("error", () => {}));
  return {
    database,
    bare,
    pool: withBemi(bare),
    story: async () =>
      (await seen(database.port)).map((change) =>
        `${change.after.task ?? change.before.task} ${change.context.user_id ?? "-"}`
      ),
    [Symbol.asyncDispose]: async () => {
      // Not awaited: a test that failed may have kept a connection.
      bare.end();
      await database[Symbol.asyncDispose]();
    },
  };
}

const as = <R>(user_id: number, fn: () => R): Promise<Awaited<R>> => withContext({ user_id }, fn);
const INSERT = "insert into todos (task) values ($1)";

onEachServer("withBemi for pg", (open) => {
  test("every way to write carries the context, and gives what the driver gives", async () => {
    await using setup = await setUp(open);
    const { pool, story } = setup;
    await as(1, async () => {
      const plain = await pool.query("insert into todos (task) values ('plain') returning id::int, task");
      expect([plain.command, plain.rowCount, plain.rows]).toEqual(["INSERT", 1, [{ id: 1, task: "plain" }]]);
      expect((await pool.query(`${INSERT} returning task`, ["values"])).rows).toEqual([{ task: "values" }]);
      for (const task of ["named 1", "named 2"]) {
        await pool.query({ name: "add-todo", text: INSERT, values: [task] });
      }
      const array = await pool.query({
        text: `${INSERT} returning task`,
        values: ["array"],
        rowMode: "array",
      });
      expect(array.rows).toEqual([["array"]]);
      const several = await pool.query(
        "select 1 as one; insert into todos (task) values ('several') returning task",
      );
      expect((several as unknown as pg.QueryResult[]).map(({ rows }) => rows)).toEqual([
        [{ one: 1 }],
        [{ task: "several" }],
      ]);
      const client = await pool.connect();
      await client.query(INSERT, ["client"]);
      client.release();
    });
    await pool.query(INSERT, ["outside"]);
    expect(await story()).toEqual([
      ...["plain", "values", "named 1", "named 2", "array", "several", "client"].map((task) => `${task} 1`),
      "outside -",
    ]);
    const [, values] = await seen(setup.database.port);
    expect(values?.context.SQL).toBe(`${INSERT} returning task`);
  });

  test("callbacks are called, and in their caller's context", async () => {
    await using setup = await setUp(open, { max: 1 });
    const { pool, story } = setup;
    const inserted = (task: string): Promise<unknown> =>
      new Promise((done, fail) =>
        pool.query(INSERT, [task], (error) => {
          if (error) return fail(error);
          pool.query({ text: INSERT, values: [`${task} again`] }, () =>
            pool.connect((_error, client, release) =>
              client?.query("insert into todos (task) values ('" + task + " thrice')", () => {
                release();
                done(currentContext());
              })
            ));
        })
      );
    const contexts = await Promise.all([
      as(1, () => inserted("a")),
      inserted("b"),
      as(2, () => inserted("c")),
    ]);
    expect(contexts).toEqual([{ user_id: 1 }, undefined, { user_id: 2 }]);
    expect((await story()).sort()).toEqual([
      ...["a 1", "a again 1", "a thrice 1", "b -", "b again -", "b thrice -"],
      ...["c 2", "c again 2", "c thrice 2"],
    ]);
    await as(1, () =>
      new Promise((done) =>
        pool.query("insert into todos (nothing) values (1)", (error) => {
          expect(error).toMatchObject({ code: "42703" });
          done(undefined);
        })
      ));
  });

  test("cursors, streams and query objects carry it too", async () => {
    await using setup = await setUp(open);
    const { pool, story } = setup;
    const many = "insert into todos (task) select $1::text || n from generate_series(1, 5) n returning task";
    const client = await pool.connect();
    await as(1, async () => {
      const cursor = client.query(new Cursor(many, ["c"]));
      expect((await cursor.read(2)).map((row) => row.task)).toEqual(["c1", "c2"]);
      expect(await cursor.read(9)).toHaveLength(3);
      await cursor.close();
      const streamed: string[] = [];
      for await (const row of client.query(new QueryStream(many, ["s"], { batchSize: 2 }))) {
        streamed.push(row.task);
      }
      expect(streamed).toHaveLength(5);
      const rows = await new Promise<unknown[]>((done, fail) => {
        const query = client.query(new pg.Query("insert into todos (task) values ('q') returning task"));
        const found: unknown[] = [];
        query.on("row", (row) => void found.push(row, currentContext()));
        query.on("end", () => done(found)).on("error", fail);
      });
      expect(rows).toEqual([{ task: "q" }, { user_id: 1 }]);
      await client.query("begin");
      const inTransaction = client.query(new Cursor("insert into todos (task) values ('tc') returning task"));
      expect(await inTransaction.read(1)).toEqual([{ task: "tc" }]);
      await inTransaction.close();
      await client.query("commit");
      const failing = client.query(new Cursor("insert into todos (nothing) values (1)"));
      await expect(failing.read(1)).rejects.toMatchObject({ code: "42703" });
    });
    const outside = client.query(new Cursor(many, ["o"]));
    await outside.read(9);
    await outside.close();
    client.release();
    expect((await story()).sort()).toEqual(
      [
        ...[1, 2, 3, 4, 5].flatMap((n) => [`c${n} 1`, `s${n} 1`, `o${n} -`]),
        "q 1",
        "tc 1",
      ].sort(),
    );
  });

  test("in a transaction each statement has the context in force, also behind savepoints", async () => {
    await using setup = await setUp(open);
    const { pool, story } = setup;
    const client = await pool.connect();
    const add = (task: string): Promise<unknown> => client.query(INSERT, [task]);
    await as(1, async () => {
      await client.query("begin isolation level serializable");
      await add("a");
      mergeContext({ user_id: 2 });
      await add("b");
      await client.query("savepoint here");
      mergeContext({ user_id: 3 });
      await add("lost");
      await expect(add(null as never)).rejects.toMatchObject({ code: "23502" });
      await client.query("rollback to here");
      await add("c");
      await client.query("select 1; insert into todos (task) values ('d')"); // the simple protocol
      await withContext({}, () => add("e"), { mode: "replace" });
      await client.query("commit and chain");
      await add("f");
      await client.query("commit and chain");
      await add("lost too");
      await client.query("rollback and chain");
      await add("g");
      await client.query("commit");
      await add("h");
      await client.query("BEGIN; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ");
      await add("i");
      await client.query("COMMIT");
    });
    await client.query("begin");
    await add("j");
    await as(5, () => add("k"));
    await add("l");
    await client.query("commit");
    await add("m");
    const left = await client.query("select current_setting('bemi.context', true) as context");
    expect(left.rows[0].context || null).toBeNull();
    client.release();
    expect(await story()).toEqual([
      "a 1",
      "b 2",
      "c 3",
      "d 3",
      "e -",
      "f 3",
      "g 3",
      "h 3",
      "i 3",
      "j -",
      "k 5",
      "l -",
      "m -",
    ]);
  });

  test("what is asked for before the answer keeps its order and its context", async () => {
    await using setup = await setUp(open);
    const { pool, story } = setup;
    const client = await pool.connect();
    const asked = [
      client.query("begin"),
      as(1, () => client.query(INSERT, ["a"])),
      client.query(INSERT, ["b"]),
      as(2, () => client.query(INSERT, ["c"])),
      client.query("commit"),
      as(
        3,
        () => client.query("insert into todos (task) values ('d'); insert into todos (task) values ('e')"),
      ),
      client.query(INSERT, ["f"]),
      as(4, () => client.query(INSERT, ["g"])),
    ];
    await Promise.all(asked);
    client.release();
    expect(await story()).toEqual(["a 1", "b -", "c 2", "d 3", "e 3", "f -", "g 4"]);
  });

  test("a pipelined client does the same", async () => {
    await using setup = await setUp(open, { pipeline: true } as pg.PoolConfig);
    const { pool, story } = setup;
    const client = await pool.connect();
    await Promise.all([
      as(1, () => client.query(INSERT, ["a"])),
      client.query("begin"),
      as(1, () => client.query({ name: "add", text: INSERT, values: ["b"] })),
      as(2, () => client.query({ name: "add", text: INSERT, values: ["c"] })),
      client.query(INSERT, ["d"]),
      client.query("commit"),
      as(1, () => client.query(INSERT, ["e"])),
      client.query(INSERT, ["f"]),
      as(3, () => client.query("insert into todos (nothing) values (1)")).catch(() => {}),
      as(3, () => client.query("insert into todos (task) values ('g'); select 1")),
    ]);
    client.release();
    expect(await story()).toEqual(["a 1", "b 1", "c 2", "d -", "e 1", "f -", "g 3"]);
  });

  test("errors keep their fields and the caller's line, also those that the commit raises", async () => {
    await using setup = await setUp(open);
    const { pool, database, story } = setup;
    await database.port.execute(
      "alter table todos add constraint once unique (task) deferrable initially deferred",
    );
    await as(1, async () => {
      const wrong = await pool.query("insert into todos (nothing) values (1)").catch((error: Error) => error);
      expect(wrong).toMatchObject({ code: "42703", position: "20" });
      expect((wrong as Error).stack).toMatch(/pg-client\.test\.ts/);
      await pool.query(INSERT, ["twice"]);
      for (
        const again of [[INSERT, ["twice"]], ["select 1; insert into todos (task) values ('twice')"]] as const
      ) {
        await expect(pool.query(...again as [string])).rejects.toMatchObject({ code: "23505" });
      }
      // What pg itself refuses does not send the context alone.
      await pool.query({ name: "one", text: INSERT, values: ["named"] });
      const client = await pool.connect();
      await client.query({ name: "two", text: "select 1" });
      await expect(client.query({ name: "two", text: INSERT, values: ["x"] })).rejects.toThrow(
        /must be unique/,
      );
      const circular: { self?: unknown } = {};
      circular.self = circular;
      await expect(client.query(INSERT, [circular])).rejects.toThrow(/circular/i);
      await client.query(INSERT, ["goes on"]);
      await client.query("begin");
      await expect(client.query({ name: "two", text: INSERT, values: ["x"] })).rejects.toThrow(
        /must be unique/,
      );
      await expect(client.query(INSERT, [circular])).rejects.toThrow(/circular/i);
      await client.query(`${INSERT} returning task`, ["in a transaction"]);
      await client.query("commit");
      client.release();
    });
    expect(await story()).toEqual(["twice 1", "named 1", "goes on 1", "in a transaction 1"]);
  });

  test("what cannot run in a transaction runs once without, with a warning", async () => {
    await using setup = await setUp(open);
    const { pool, bare, database, story } = setup;
    await database.port.execute(`create procedure complete() language plpgsql as $$ begin
      insert into todos (task) values ('called'); commit; end $$`);
    warnings.length = 0;
    await as(1, () => pool.query("call complete()"));
    const called = await story();
    expect([["called 1"], ["called -"]]).toContainEqual(called);
    // Some servers let a procedure commit behind the context: then it had it.
    expect(warnings).toHaveLength(called[0] === "called -" ? 1 : 0);
    await as(1, () => pool.query("vacuum todos"));
    await as(1, () => pool.query("create index concurrently on todos (task)"));
    const all = withBemi(bare, { wrap: "all" });
    warnings.length = 0;
    await as(1, () => all.query("create index concurrently on todos (task, id)"));
    await as(
      1,
      () =>
        new Promise<void>((done, fail) =>
          all.query("create index concurrently on todos (id, task)", (error) => error ? fail(error) : done())
        ),
    );
    expect(warnings).toHaveLength(2);
    await as(2, () => all.query("insert into todos (task) values ('after')"));
    expect((await story()).at(-1)).toBe("after 2");
  });

  test("a function that writes needs wrap: all", async () => {
    await using setup = await setUp(open);
    const { pool, bare, database, story } = setup;
    await database.port.execute(`create function complete() returns void language sql as $$
      insert into todos (task) values ('from a function') $$`);
    await as(1, () => pool.query("select complete()"));
    await as(1, () => withBemi(bare, { wrap: "all" }).query("select complete()"));
    expect(await story()).toEqual(["from a function -", "from a function 1"]);
  });

  test("300 overlapping requests on 4 connections, half of them failing, never mix", async () => {
    await using setup = await setUp(open);
    await expectIsolation(setup.database, overPool(setup.pool));
    const left = await Promise.all(
      Array.from(
        { length: 8 },
        () => setup.pool.query("select current_setting('bemi.context', true) as context, pg_sleep(0.01)"),
      ),
    );
    for (const { rows } of left) expect(rows[0].context || null).toBeNull();
  });

  test("a killed backend fails the statement alone", async () => {
    await using setup = await setUp(open, { max: 2 });
    const { pool, database, story } = setup;
    const statements = [
      "insert into todos (task) select 'killed' from pg_sleep(30)",
      "insert into todos (task) select 'killed' from pg_sleep(30); select 2",
    ];
    for (const text of statements) {
      const killed = as(1, () => pool.query(text)).catch((error: unknown) => error);
      for (let found = 0; !found;) {
        const rows = await database.port.query(
          "select pg_terminate_backend(pid) from pg_stat_activity where query = $1 and pid <> pg_backend_pid()",
          [text],
        );
        found = rows.length;
      }
      expect(await killed).toBeInstanceOf(Error);
    }
    await Promise.all([1, 2, 3, 4].map((user) => as(user, () => pool.query(INSERT, ["alive"]))));
    expect((await story()).sort()).toEqual([1, 2, 3, 4].map((user) => `alive ${user}`));
  });

  test("a single client, the module, types and options are the driver's own", async () => {
    await using setup = await setUp(open);
    const { pool, bare, database, story } = setup;
    const client = withBemi(new pg.Client(database.url));
    expect(await client.connect()).toBe(client);
    await as(1, () => client.query(INSERT, ["client"]));
    expect(client).toBeInstanceOf(pg.Client);
    await client.end();
    const Module = withBemi(pg);
    const made = new Module.Pool({ connectionString: database.url });
    await as(2, () => made.query(INSERT, ["module"]));
    expect(made).toBeInstanceOf(pg.Pool);
    await made.end();
    expect(withBemi(pool)).toBe(pool);
    expect([pool.totalCount, pool.options.max]).toEqual([bare.totalCount, 4]);
    expect(pool.on("acquire", () => {})).toBe(pool);
    const one = await pool.connect();
    one.release();
    const same = await pool.connect();
    expect(same).toBe(one);
    same.release();
    expect(await story()).toEqual(["client 1", "module 2"]);
    expect(() => withBemi({ query() {}, connect() {} })).toThrow(/takes a Pool or a Client of pg/);
  });

  test("what an application puts in the place of a method is called, and taken away again", async () => {
    await using setup = await setUp(open);
    const { pool, story } = setup;
    const texts: unknown[] = [];
    const note = (query: (...args: unknown[]) => unknown, on: object) => (...args: unknown[]): unknown => {
      texts.push(args[0]);
      return query.apply(on, args);
    };
    await as(1, async () => {
      // As the guide of node-postgres does.
      const client = await pool.connect();
      const { query, release } = client;
      Object.assign(client, { query: note(query as never, client) });
      client.release = () => {
        Object.assign(client, { query, release });
        release.call(client);
      };
      await client.query(INSERT, ["a"]);
      client.release();
      const spy = vi.spyOn(pool, "query");
      await pool.query(INSERT, ["b"]);
      expect(spy).toHaveBeenCalledOnce();
      spy.mockRestore();
      await pool.query(INSERT, ["c"]);
      Object.assign(pool, { query: note(pool.query as never, pool) });
      await pool.query(INSERT, ["d"]);
      Reflect.deleteProperty(pool, "query");
      await pool.query(INSERT, ["e"]);
    });
    expect(texts).toEqual([INSERT, INSERT]);
    expect(await story()).toEqual(["a 1", "b 1", "c 1", "d 1", "e 1"]);
  });

  test("a write takes one round trip, as without", async () => {
    await using setup = await setUp(open, { max: 1 });
    const { pool, bare } = setup;
    const client = await bare.connect();
    const syncs: string[] = [];
    (client as unknown as { connection: NodeJS.EventEmitter }).connection.on(
      "readyForQuery",
      (message) => void syncs.push(message.status),
    );
    client.release();
    await as(1, () => pool.query(INSERT, ["one"]));
    expect(syncs).toEqual(["I"]);
    await as(1, () => pool.query("insert into todos (task) values ('two')"));
    expect(syncs).toEqual(["I", "I"]);
  });
});
