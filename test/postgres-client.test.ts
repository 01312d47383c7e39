import { type AddressInfo, createConnection, createServer, Socket } from "node:net";
import { writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type postgres from "postgres";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { currentContext, mergeContext, onWarning, withContext } from "../mod.ts";
import { withBemi } from "../src/adapters/postgres.ts";
import { install, track } from "./support/installation.ts";
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

type Real = TestDatabase & { url: string; db: postgres.Sql };

async function todos(database: Real, options: object = {}): Promise<postgres.Sql> {
  await install(database.db);
  await database.port.execute(TODOS);
  await track(database.db, "todos");
  return withBemi(database.connect(options));
}

/** `task user` of each change, in order; users of after, or before where the row went. */
async function story(database: TestDatabase): Promise<string[]> {
  return (await seen(database.port)).map((change) =>
    `${change.after.task ?? change.before.task} ${change.context.user_id ?? "-"}`
  );
}

const as = <R>(user_id: number, fn: () => R): Promise<Awaited<R>> => withContext({ user_id }, fn);

onEachServer("withBemi for postgres.js", (open) => {
  test("every way to write carries the context, and gives what the driver gives", async () => {
    await using database = await open();
    const sql = await todos(database);
    const file = join(tmpdir(), `bemi-test-${process.pid}.sql`);
    writeFileSync(file, "insert into todos (task) values ('file') returning task");
    const columns = sql`(task, is_completed)`;
    await as(1, async () => {
      const [row] =
        await sql`insert into todos ${columns} values (${"tagged"}, ${false}) returning id::int, task`;
      expect(row).toEqual({ id: 1, task: "tagged" });
      const rows = await sql`insert into todos ${sql([{ task: "x" }, { task: "y" }])} returning task`;
      expect([rows.count, rows.command, rows.map((r) => r.task)]).toEqual([2, "INSERT", ["x", "y"]]);
      expect(await sql`update todos set task = 'v' where task = 'y' returning task`.values()).toEqual([[
        "v",
      ]]);
      const raw = await sql`insert into todos (task) values ('raw') returning task`.raw();
      expect(raw[0]?.[0]?.toString()).toBe("raw");
      const [first, second] = await sql.unsafe<[unknown, unknown]>(
        "select 1 as one; insert into todos (task) values ('unsafe') returning task",
      );
      expect([first, second]).toEqual([[{ one: 1 }], [{ task: "unsafe" }]]);
      expect(await sql.unsafe("insert into todos (task) values ($1) returning task", ["with $1"])).toEqual([
        { task: "with $1" },
      ]);
      expect([...await sql.file(file)]).toEqual([{ task: "file" }]);
      const each: unknown[] = [];
      await sql`insert into todos (task) values ('each') returning task`.forEach((r) => void each.push(r));
      expect(each).toEqual([{ task: "each" }]);
      const walked: unknown[] = [];
      const inserted =
        sql`insert into todos (task) select 'c' || n from generate_series(1, 5) n returning task`;
      for await (const part of inserted.cursor(2)) walked.push(part.map((r) => r.task));
      expect(walked).toEqual([["c1", "c2"], ["c3", "c4"], ["c5"]]);
      await sql`insert into todos (task) values ('k1'), ('k2') returning task`.cursor(1, () => {});
      const statement = await sql`insert into todos (task) values (${"never"})`.describe();
      expect(statement.types).toEqual([25]);
    });
    await sql`insert into todos (task) values ('outside')`;
    expect(await story(database)).toEqual(
      [
        ...["tagged", "x", "y", "v", "raw", "unsafe", "with $1", "file", "each"],
        ...["c1", "c2", "c3", "c4", "c5", "k1", "k2"],
      ].map((task) => `${task} 1`).concat("outside -"),
    );
  });

  test("a callback of forEach or cursor runs in the caller's context", async () => {
    await using database = await open();
    const sql = await todos(database);
    await as(1, async () => {
      const pending: Promise<unknown>[] = [];
      await sql`select 'each' as task`.forEach(({ task }) =>
        void pending.push(sql`insert into todos (task) values (${task})`.execute())
      );
      await sql`select 'cursor' as task`.cursor(async ([row]) => {
        await sql`insert into todos (task) values (${row?.task})`;
      });
      await Promise.all(pending);
    });
    expect((await story(database)).sort()).toEqual(["cursor 1", "each 1"]);
  });

  test("a lazy query runs in the context in which it was made", async () => {
    await using database = await open();
    const sql = await todos(database);
    const query = await as(1, () => ({ made: sql`insert into todos (task) values ('made')` }));
    await query.made;
    await as(2, () => sql`insert into todos (task) values ('returned')`);
    const outside = sql`insert into todos (task) values ('made outside')`;
    await as(3, async () => void await outside);
    expect(await story(database)).toEqual(["made 1", "returned 2", "made outside 3"]);
  });

  test("in a transaction each statement has the context in force, also behind savepoints", async () => {
    await using database = await open();
    const sql = await todos(database);
    const add = (tx: postgres.TransactionSql, task: string): Promise<unknown> =>
      tx`insert into todos (task) values (${task})`.execute();
    await as(1, async () => {
      await sql.begin("isolation level serializable", async (tx) => {
        await add(tx, "a");
        mergeContext({ user_id: 2 });
        await add(tx, "b");
        await tx.savepoint("inner", async (sp) => {
          mergeContext({ user_id: 3 });
          await add(sp, "lost");
          throw new Error("back");
        }).catch(() => {});
        await add(tx, "c");
        await tx`savepoint by_hand`;
        mergeContext({ user_id: 4 });
        await add(tx, "lost too");
        await tx`rollback to by_hand`;
        await add(tx, "d");
        await withContext({}, () => add(tx, "e"), { mode: "replace" });
        expect(await tx.savepoint((sp) => [sp`select 1 as one`])).toEqual([[{ one: 1 }]]);
      });
      const [one, two] = await sql.begin((tx) => [
        tx`insert into todos (task) values ('f') returning task`,
        tx`insert into todos (task) values ('g') returning task`,
      ]);
      expect([one, two]).toEqual([[{ task: "f" }], [{ task: "g" }]]);
    });
    await sql.begin(async (tx) => {
      await add(tx, "h");
      await as(5, () => add(tx, "i"));
      await add(tx, "j");
    });
    await as(6, () =>
      sql.begin(async (tx) => {
        await tx`set transaction read write`;
        await tx.unsafe("set transaction isolation level repeatable read");
        await add(tx, "k");
      }));
    expect(await story(database)).toEqual([
      ...["a 1", "b 2", "c 3", "d 4", "e -", "f 4", "g 4", "h -", "i 5", "j -", "k 6"],
    ]);
  });

  test("a prepared transaction keeps its contexts", async () => {
    await using database = await open();
    const sql = await todos(database);
    await as(1, () =>
      sql.begin(async (tx) => {
        await tx`insert into todos (task) values ('two-phase')`;
        await tx.prepare("bemi_two_phase");
      }));
    expect(await story(database)).toEqual([]);
    await as(2, () => sql`commit prepared 'bemi_two_phase'`);
    expect(await story(database)).toEqual(["two-phase 1"]);
  });

  test("a reserved connection may run its own transactions", async () => {
    await using database = await open();
    const sql = await todos(database);
    const reserved = await sql.reserve();
    await as(1, async () => {
      await reserved`insert into todos (task) values ('alone')`;
      await reserved`begin`;
      await reserved`insert into todos (task) values ('a')`;
      mergeContext({ user_id: 2 });
      await reserved`insert into todos (task) values ('b')`;
      await reserved`rollback and chain`;
      await reserved`insert into todos (task) values ('c')`;
      await reserved`commit`;
      await Promise.all([
        reserved`insert into todos (task) values ('d')`,
        reserved`insert into todos (task) values ('e')`,
      ]);
    });
    await reserved`insert into todos (task) values ('f')`;
    reserved.release();
    expect(await story(database)).toEqual(["alone 1", "c 2", "d 2", "e 2", "f -"]);
  });

  test("COPY works both ways, and a broken one leaves nothing", async () => {
    await using database = await open();
    const sql = await todos(database, { max: 1 });
    await as(1, async () => {
      await pipeline(
        Readable.from(["11\tone\n", "12\ttwo\n"]),
        await sql`copy todos (id, task) from stdin`.writable(),
      );
      await expect(pipeline(Readable.from(["bad\n"]), await sql`copy todos (id, task) from stdin`.writable()))
        .rejects.toThrow(/invalid input syntax/);
      const aborted = await sql`copy todos (id, task) from stdin`.writable();
      await expect(pipeline(
        Readable.from((async function* () {
          yield "13\tthree\n";
          await new Promise((done) => setTimeout(done, 10));
          throw new Error("source broke");
        })()),
        aborted,
      )).rejects.toThrow("source broke");
      const lines: string[] = [];
      for await (const chunk of await sql`copy todos (task) to stdout`.readable()) lines.push(String(chunk));
      expect(lines.join("")).toBe("one\ntwo\n");
      const written: string[] = [];
      const out = await sql`copy (insert into todos (task) values ('out') returning task) to stdout`
        .readable();
      for await (const chunk of out) written.push(String(chunk));
      expect(written.join("")).toBe("out\n");
      await sql`insert into todos (task) values ('after')`;
    });
    expect(await story(database)).toEqual(["one 1", "two 1", "out 1", "after 1"]);
  });

  test("errors keep their fields and the caller's line, also those that the commit raises", async () => {
    await using database = await open();
    const sql = await todos(database);
    await database.port.execute(
      "alter table todos add constraint once unique (task) deferrable initially deferred",
    );
    await as(1, async () => {
      const failing = async (): Promise<void> => {
        await sql`insert into todos (nothing) values (1)`;
      };
      const wrong = await failing().catch((error: postgres.PostgresError) => error) as postgres.PostgresError;
      expect(wrong).toMatchObject({ code: "42703", query: "insert into todos (nothing) values (1)" });
      expect(wrong.stack).toMatch(/postgres-client\.test\.ts/);
      await sql`insert into todos (task) values ('twice')`;
      const deferred = await sql`insert into todos (task) values (${"twice"})`.catch((error: unknown) =>
        error
      );
      expect(deferred).toMatchObject({ code: "23505", query: "insert into todos (task) values ($1)" });
    });
    const outside = await sql`insert into todos (nothing) values (2)`.catch((error: Error) => error) as Error;
    expect(outside.stack).toMatch(/postgres-client\.test\.ts/);
    await expect(as(1, () => sql.file("/nowhere/at/all.sql"))).rejects.toMatchObject({ code: "ENOENT" });
    await as(2, () => sql`insert into todos (task) values ('goes on')`);
    expect(await story(database)).toEqual(["twice 1", "goes on 2"]);
  });

  test("what cannot run in a transaction runs once without, with a warning", async () => {
    await using database = await open();
    const sql = await todos(database);
    await database.port.execute(`create procedure complete() language plpgsql as $$ begin
      insert into todos (task) values ('called'); commit; end $$`);
    warnings.length = 0;
    await as(1, () => sql`call complete()`);
    expect(warnings).toEqual([expect.stringMatching(/without its context/)]);
    await as(1, () => sql`vacuum todos`);
    await as(1, () => sql`create index concurrently on todos (task)`);
    const all = withBemi(database.connect(), { wrap: "all" });
    await as(1, () => all`create index concurrently on todos (task, id)`);
    expect(warnings).toHaveLength(2);
    expect(await story(database)).toEqual(["called -"]);
  });

  test("a function that writes needs wrap: all", async () => {
    await using database = await open();
    const sql = await todos(database);
    await database.port.execute(`create function complete() returns void language sql as $$
      insert into todos (task) values ('from a function') $$`);
    await as(1, () => sql`select complete()`);
    await as(1, () => withBemi(database.connect(), { wrap: "all" })`select complete()`);
    expect(await story(database)).toEqual(["from a function -", "from a function 1"]);
  });

  test("a plan that went stale is repeated with its context", async () => {
    await using database = await open();
    const sql = await todos(database, { max: 2 });
    await as(1, async () => {
      const add = (task: string): Promise<unknown> =>
        sql`insert into todos (task) values (${task}) returning *`.execute();
      await Promise.all([add("a"), add("b")]);
      await database.port.execute("alter table todos add column note text");
      await Promise.all([add("c"), add("d")]);
    });
    expect((await story(database)).sort()).toEqual(["a 1", "b 1", "c 1", "d 1"]);
  });

  test("300 overlapping requests on 4 connections, some failing, cancelled or in transactions, never mix", async () => {
    await using database = await open();
    const sql = await todos(database, { max: 4 });
    const results = await Promise.allSettled(Array.from({ length: 300 }, (_, user) =>
      as(user, async () => {
        const task = `t${user}`;
        switch (user % 6) {
          case 0:
            return await sql`insert into todos (task) values (${task})`;
          case 1:
            return await sql.begin(async (tx) => {
              await tx`insert into todos (task) values (${task})`;
              await new Promise((done) => setTimeout(done, Math.random() * 5));
              await tx`update todos set is_completed = true where task = ${task}`;
            });
          case 2:
            return await sql`insert into todos (task, nothing) values (${task}, 1)`;
          case 3: {
            const query = sql`insert into todos (task) select ${task} from pg_sleep(0.02)`;
            setTimeout(() => query.cancel(), Math.random() * 40);
            return await query;
          }
          case 4:
            return await sql.unsafe(`select 1; insert into todos (task) values ('${task}')`);
          default:
            return await sql.begin(async (tx) => {
              await tx`insert into todos (task) values (${task})`;
              throw new Error("no");
            });
        }
      })));
    expect(results.filter((_, user) => [0, 1, 4].includes(user % 6)).map((r) => r.status)).not.toContain(
      "rejected",
    );
    expect(results.filter((_, user) => [2, 5].includes(user % 6)).map((r) => r.status)).not.toContain(
      "fulfilled",
    );
    const changes = await seen(database.port);
    for (const change of changes) expect(change.after.task).toBe(`t${change.context.user_id as number}`);
    const live = await sql`select task from todos order by task`;
    expect(changes.filter((c) => c.operation === "CREATE").map((c) => c.after.task).sort())
      .toEqual(live.map((row) => row.task).sort());
    // The pool is whole, and no connection kept a context.
    const left = await Promise.all(
      Array.from(
        { length: 8 },
        () => sql`select current_setting('bemi.context', true) as context, pg_sleep(0.01)`,
      ),
    );
    for (const [row] of left) expect(row?.context || null).toBeNull();
  });

  test("under back-pressure a write gets its transaction all the same", async () => {
    await using database = await open();
    const { hostname, port } = new URL(database.url);
    // To the driver each large write fills the buffer.
    const socket = (): Promise<Socket> =>
      new Promise((connected) => {
        const made = createConnection(Number(port), hostname, () => {
          made.write = (chunk: Uint8Array, ...more: unknown[]) => {
            Reflect.apply(Socket.prototype.write, made, [chunk, ...more]);
            const isFull = chunk.length > 1024;
            if (isFull) setImmediate(() => made.emit("drain"));
            return !isFull;
          };
          connected(made);
        });
      });
    const sql = await todos(database, { max: 2, socket });
    // Larger than what the driver holds back to send it with what follows.
    const write = (user_id: number): Promise<unknown> =>
      withContext(
        { user_id, filling: "x".repeat(2000) },
        () => sql`insert into todos (task) values (${`t${user_id}`})`,
      );
    await Promise.all([write(0), write(1), write(2), write(3)]);
    const read = (): Promise<unknown> => sql`select pg_sleep(0.001)`;
    await Promise.all(Array.from({ length: 40 }, (_, i) => i % 3 === 0 ? read() : write(4 + i)));
    const changes = await seen(database.port);
    expect(changes).toHaveLength(30);
    for (const change of changes) expect(change.after.task).toBe(`t${change.context.user_id as number}`);
    expect(
      await database.db`select from pg_stat_activity
        where datname = current_database() and state like 'idle in transaction%'`,
    ).toEqual([]);
  });

  test("a killed backend fails the statement alone", async () => {
    await using database = await open();
    const sql = await todos(database, { max: 2 });
    for (let round = 0; round < 5; round++) {
      const name = `insert into todos (task) select 'killed' from pg_sleep(5)`;
      const killed = as(1, () => sql.unsafe(name)).catch((error: { code: string }) => error.code);
      for (let pid = 0; !pid;) {
        const rows = await database
          .db`select pg_terminate_backend(pid) from pg_stat_activity where query = ${name}`;
        pid = rows.length;
      }
      expect(await killed).toMatch(/^57P01|CONNECTION_CLOSED|ECONNRESET$/);
    }
    await Promise.all(
      [1, 2, 3, 4].map((user) => as(user, () => sql`insert into todos (task) values ('alive')`)),
    );
    expect((await story(database)).sort()).toEqual([1, 2, 3, 4].map((user) => `alive ${user}`));
  });

  test("a request that is cancelled while it waits for the pool never runs", async () => {
    await using database = await open();
    const sql = await todos(database, { max: 1 });
    const slow = as(1, () => sql`insert into todos (task) select 'slow' from pg_sleep(0.1)`);
    await new Promise((done) => setTimeout(done, 30));
    const waiting = as(2, async () => {
      const query = sql`insert into todos (task) values ('never')`;
      query.execute();
      setTimeout(() => query.cancel(), 20);
      return await query;
    });
    await expect(waiting).rejects.toMatchObject({ code: "57014" });
    await slow;
    await as(3, () => sql`insert into todos (task) values ('next')`);
    expect(await story(database)).toEqual(["slow 1", "next 3"]);
    await sql.end();
    await expect(as(4, () => sql`insert into todos (task) values ('late')`)).rejects.toMatchObject({
      code: "CONNECTION_ENDED",
    });
  });

  test("listen, types and options are the driver's own", async () => {
    await using database = await open();
    const sql = await todos(database);
    const heard: string[] = [];
    const { unlisten } = await sql.listen("news", (payload) => void heard.push(payload));
    await as(1, () => sql.notify("news", "hello"));
    await expect.poll(() => heard).toEqual(["hello"]);
    await unlisten();
    expect(sql.options.max).toBe(4);
    expect(withBemi(sql)).toBe(sql);
    const [row] = await as(
      1,
      () => sql`select ${sql.json({ a: 1 })}::jsonb as json, ${sql.array([1, 2])}::int[] as list`,
    );
    expect(row).toEqual({ json: { a: 1 }, list: [1, 2] });
    expect(() => withBemi({ query() {} } as never)).toThrow(/postgres\.js/);
  });

  test("what an application puts in the place of a method is called, and taken away again", async () => {
    await using database = await open();
    const sql = await todos(database);
    const spy = vi.spyOn(sql, "unsafe");
    await as(1, () => sql.unsafe("insert into todos (task) values ('a')"));
    expect(spy).toHaveBeenCalledOnce();
    spy.mockRestore();
    await as(2, () => sql.unsafe("insert into todos (task) values ('b')"));
    expect(await story(database)).toEqual(["a 1", "b 2"]);
  });

  test("a listener runs in the context of whoever listens, not of the first one", async () => {
    await using database = await open();
    const sql = await todos(database);
    const writes: Promise<unknown>[] = [];
    const hear = (task: string): void => {
      writes.push(sql`insert into todos (task) values (${task})`.execute());
    };
    await as(1, () => sql.listen("news", () => hear("a")));
    await as(2, () => sql.listen("news", () => hear("b"), () => hear("b listens")));
    await sql.listen("news", () => hear("c"));
    await sql.notify("news", "");
    await expect.poll(() => writes.length).toBe(4);
    await Promise.all(writes);
    expect((await story(database)).sort()).toEqual(["a 1", "b 2", "b listens 2", "c -"]);
  });

  test("a subscription hears what is written in a context", async () => {
    await using database = await open();
    await todos(database);
    const name = `test_${process.pid}`;
    await database.port.execute(`create publication ${name} for table todos`);
    const sql = withBemi(database.connect({ publications: name, max: 2 }));
    const heard: unknown[] = [];
    const others: unknown[] = [];
    await as(1, () => sql.subscribe("insert:todos", () => void others.push(currentContext())));
    await as(2, () => sql.subscribe("insert:todos", () => void others.push(currentContext())));
    const subscription = await sql.subscribe("*:todos", (row, { command }) => {
      heard.push([command, row?.task]);
    });
    await as(1, async () => {
      await sql`insert into todos (task) values ('a')`;
      await sql`update todos set task = 'b'`;
    });
    await expect.poll(() => heard, { timeout: 20_000 }).toEqual([["insert", "a"], ["update", "b"]]);
    expect(others).toEqual([{ user_id: 1 }, { user_id: 2 }]);
    subscription.unsubscribe();
    expect(await story(database)).toEqual(["a 1", "b 1"]);
  });

  test("without prepared statements, as behind a pooler, all is the same", async () => {
    await using database = await open();
    const sql = await todos(database, { prepare: false });
    await as(1, async () => {
      await sql`insert into todos (task) values (${"a"})`;
      await sql.begin((tx) => tx`insert into todos (task) values (${"b"})`);
    });
    expect(await story(database)).toEqual(["a 1", "b 1"]);
  });

  test.each([
    ["prepared", {}, 1, 1],
    ["not prepared", { prepare: false }, 2, 3],
  ])("a single write, %s, takes as many round trips as it must", async (_, options, bare, wrapped) => {
    await using database = await open();
    await install(database.db);
    await database.port.execute(TODOS);
    await track(database.db, "todos");
    using proxy = await slowProxy(database.url);
    const client = database.connect({ ...options, host: "127.0.0.1", port: proxy.port, max: 1 });
    const sql = withBemi(client);
    const write = (): Promise<unknown> => sql`insert into todos (task) values (${"Sleep"})`;
    const inContext = (): Promise<unknown> => withContext({ user_id: 42 }, write);
    // Prepares what can be.
    for (let i = 0; i < 2; i++) await write().then(inContext);
    expect(await proxy.trips(write)).toBe(bare);
    expect(await proxy.trips(inContext)).toBeLessThanOrEqual(wrapped);
    expect((await seen(database.port)).filter(({ context }) => context.user_id === 42)).toHaveLength(3);
  });
});

/** Passes bytes on, the server's late, so that what a client sends before it can have an answer is one trip. */
async function slowProxy(
  url: string,
): Promise<Disposable & { port: number; trips(fn: () => Promise<unknown>): Promise<number> }> {
  const { hostname, port } = new URL(url);
  let trips = 0;
  let isAnswered = true;
  const server = createServer((client) => {
    const upstream = createConnection(Number(port), hostname);
    client.on("data", (chunk: Uint8Array) => {
      if (isAnswered) trips++;
      isAnswered = false;
      upstream.write(chunk);
    });
    upstream.on("data", (chunk: Uint8Array) =>
      setTimeout(() => {
        isAnswered = true;
        client.write(chunk);
      }, 20));
    for (const [from, to] of [[client, upstream], [upstream, client]] as const) {
      from.on("close", () => to.destroy()).on("error", () => {});
    }
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  return {
    port: (server.address() as AddressInfo).port,
    trips: async (fn) => {
      trips = 0;
      isAnswered = true;
      await fn();
      return trips;
    },
    [Symbol.dispose]: () => void server.close(),
  };
}
