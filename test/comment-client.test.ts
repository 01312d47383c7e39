import fc from "fast-check";
import { expect, test } from "vitest";
import { onWarning, withContext } from "../mod.ts";
import { withBemi, withComment } from "../src/adapters/comment.ts";
import { contextText } from "../src/context/context-text.ts";
import { onEachDatabase, onEachServer } from "./support/databases.ts";
import { createSlot, install, runWorker, track } from "./support/installation.ts";
import { expectIsolation } from "./support/isolation.ts";
import { npmPackages } from "./support/npm-packages.ts";
import type { Writer } from "./support/requests.ts";
import { seen, TODOS } from "./support/todos.ts";

const packages = npmPackages("ts-postgres", ["ts-postgres@2.0.4"]);

/** A driver without an adapter here. */
interface TsPostgres {
  connect(options: object): Promise<TsClient>;
}
interface TsClient {
  query(statement: string | { text: string; name?: string }, values?: unknown[]): Promise<unknown>;
  end(): Promise<void>;
}

const INSERT = "insert into todos (task) values ($1)";
const COMPLETE = "update todos set is_completed = true where task = $1";

/** Four connections, each one request's own while it has it. */
function pool(clients: readonly TsClient[]) {
  const free = [...clients];
  const waiting: ((client: TsClient) => void)[] = [];
  return async <R>(fn: (client: TsClient) => Promise<R>): Promise<R> => {
    const client = free.pop() ?? await new Promise<TsClient>((got) => waiting.push(got));
    try {
      return await fn(client);
    } finally {
      const next = waiting.shift();
      if (next) next(client);
      else free.push(client);
    }
  };
}

onEachServer("a client that takes SQL as text, with its context in comments", (open) => {
  test.skipIf(!packages)("300 overlapping requests through ts-postgres never mix", async () => {
    const { connect } = await import(packages?.require.resolve("ts-postgres") ?? "") as TsPostgres;
    await using database = await open();
    await install(database.db);
    await database.port.execute(TODOS);
    await track(database.db, "todos");
    const { hostname, port, pathname, username } = new URL(database.url);
    const options = { host: hostname, port: Number(port), database: pathname.slice(1), user: username };
    const clients = await Promise.all([1, 2, 3, 4].map(() => connect(options)));
    const use = pool(clients.map((client) => withBemi(client)));
    const writer = (client: TsClient): Writer => ({
      insert: async (task) => await client.query({ text: INSERT }, [task]),
      complete: async (task) => await client.query(COMPLETE, [task]),
    });
    try {
      await expectIsolation(database, {
        insert: (task) => use((client) => writer(client).insert(task)),
        complete: (task) => use((client) => writer(client).complete(task)),
        refused: (task) =>
          use(async (client) =>
            await client.query("insert into todos (task, nothing) values ($1, 1)", [task])
          ),
        transaction: (fn) =>
          use(async (client) => {
            await client.query("begin");
            try {
              await fn(writer(client));
              await client.query("commit");
            } catch (error) {
              await client.query("rollback");
              throw error;
            }
          }),
      });
    } finally {
      await Promise.all(clients.map((client) => client.end()));
    }
  });

  test("the worker reads them from the Write-Ahead Log", async () => {
    await using database = await open();
    const { db, port, url } = database;
    await install(db);
    await createSlot(db);
    await port.execute(TODOS);
    await track(db, "todos", { capture: "wal" });
    const client = withBemi({ run: (statement: { sql: string }) => db.unsafe(statement.sql) }, {
      methods: ["run"],
    });
    await withContext({ user_id: 1, note: "*/ drop table todos; --" }, async () => {
      await client.run({ sql: "insert into todos (task) values ('Sleep') -- to the end of the line" });
    });
    await runWorker({ source: url, once: true }).finished;
    const changes = await seen(port);
    expect(changes).toHaveLength(1);
    expect(changes[0]?.context).toMatchObject({
      user_id: 1,
      note: "*/ drop table todos; --",
      SQL: "insert into todos (task) values ('Sleep') -- to the end of the line",
    });
  });
});

onEachDatabase("a comment with a context", (open) => {
  test("says what the context says, whatever it holds and however the statement ends", async () => {
    await using database = await open();
    await install(database.db);
    await database.port.execute(TODOS);
    await track(database.db, "todos");
    const parts = fc.constantFrom(
      "*/",
      "/*Bemi ",
      " Bemi*/",
      "--",
      "'",
      "$1",
      "%40",
      '"SQL": "',
      "\\",
      "é",
      "😀",
    );
    const text = fc.array(fc.oneof(parts, fc.string({ unit: "binary", maxLength: 5 })), { maxLength: 6 })
      .map((texts) => texts.join(""));
    const contexts = fc.dictionary(text, fc.oneof(text, fc.jsonValue({ maxDepth: 2 })), { maxKeys: 4 })
      .filter((context) => !["SQL", "db", "__proto__"].some((key) => key in context));
    const endings = fc.constantFrom(
      "",
      ";",
      " -- ' */",
      " /* ' */",
      "\n; ",
      " returning '/*Bemi {\"x\":1} Bemi*/'",
    );
    await fc.assert(
      fc.asyncProperty(contexts, endings, async (context, ending) => {
        const sql = `insert into todos (task) values ('Sleep')${ending}`;
        const commented = await withContext(context, () => withComment(sql));
        await database.port.execute(commented);
        const last = (await seen(database.port)).at(-1)?.context ?? {};
        const { db: _, SQL: __, ...stored } = last;
        // What jsonb makes of it.
        const [row] = await database.port.query<{ json: string }>("select $1::text::jsonb::text as json", [
          contextText(context),
        ]);
        expect(stored).toEqual(JSON.parse(row?.json ?? ""));
      }),
      { numRuns: 30 },
    );
  });

  test("a statement whose text is a getter of its class stays one of the class", async () => {
    class Statement {
      readonly strings = ["insert into todos (task) values (", ")"];
      readonly values = ["a"];
      get text(): string {
        return this.strings.join("$1");
      }
    }
    const sent: Statement[] = [];
    const client = withBemi({ query: (statement: Statement) => sent.push(statement) });
    await withContext({ user_id: 1 }, () => client.query(new Statement()));
    const [statement] = sent;
    expect(statement).toBeInstanceOf(Statement);
    expect([statement?.text, statement?.values]).toEqual([`${INSERT}\n/*Bemi {"user_id":1} Bemi*/`, ["a"]]);
  });

  test("reads and what has no context go as they are; a named statement keeps its text, with a warning", async () => {
    const sent: unknown[] = [];
    const client = withBemi({ query: (statement: unknown) => sent.push(statement) });
    const named = { name: "add", text: INSERT };
    const warnings: string[] = [];
    onWarning((message) => warnings.push(message));
    try {
      client.query(INSERT);
      await withContext({ user_id: 1 }, () => {
        client.query("select 1 /* insert */");
        client.query(named);
        client.query(undefined);
        client.query(INSERT);
      });
    } finally {
      onWarning();
    }
    expect(sent).toEqual([
      INSERT,
      "select 1 /* insert */",
      named,
      undefined,
      `${INSERT}\n/*Bemi {"user_id":1} Bemi*/`,
    ]);
    expect(warnings).toHaveLength(1);
    expect(await withContext({}, () => withComment("select 1", { wrap: "all" }))).toBe(
      "select 1\n/*Bemi {} Bemi*/",
    );
  });
});
