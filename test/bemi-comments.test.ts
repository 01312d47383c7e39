import fc from "fast-check";
import { Buffer } from "node:buffer";
import { expect, test } from "vitest";
import { parseBareContext } from "../src/worker/message.ts";
import { onEachDatabase, type TestDatabase } from "./support/databases.ts";
import { BEMI, createSlot, install, runWorker, track } from "./support/installation.ts";
import { seen, TODOS } from "./support/todos.ts";

const INSERT = "INSERT INTO todos (task) VALUES ('x') RETURNING id";

// Statements as the packages' own code puts them together, read in the sources named, on GitHub under BemiHQ; django,
// sqlalchemy and @bemi-db/prisma, which can be installed, have tests of their own that drive them.
const EMITTED: readonly { by: string; statement: string; context: Record<string, unknown> }[] = [
  {
    by: "bemi-django 0.1.3, percent-escaped, and doubled percents back from psycopg",
    statement: `INSERT INTO "todos" ("task") VALUES ('it''s') RETURNING "todos"."id" ` +
      `/*Bemi {"email": "zo\\u00eb%40example.com", "path": "/a%3Fb%3D=100% of", "glob": "%2A.ts", "SQL": "INSERT INTO \\"todos\\" (\\"task\\") VALUES (%s) RETURNING \\"todos\\".\\"id\\""} Bemi*/`,
    context: {
      email: "zoë@example.com",
      path: "/a?b%3D=100% of",
      glob: "*.ts",
      SQL: `INSERT INTO "todos" ("task") VALUES (%s) RETURNING "todos"."id"`,
    },
  },
  {
    by: "bemi-django, of a statement without parameters, before its semicolon",
    statement:
      `INSERT INTO todos (task) VALUES ('x') /*Bemi {"a": "1%%3B 100%% x%%40y", "SQL": "INSERT INTO todos (task) VALUES ('x')%%3B"} Bemi*/;`,
    context: { a: "1; 100% x@y", SQL: "INSERT INTO todos (task) VALUES ('x');" },
  },
  {
    by:
      "bemi-rails, lib/bemi/context.rb: a query transformer with ActiveSupport's to_json, which escapes HTML",
    statement:
      `${INSERT} /*Bemi {"user_id":1,"email":"\\u003ca\\u0026b@example.com\\u003e","note":"l1\\u2028l2 zoë","path":"/todos%20x%40y"} Bemi*/`,
    context: {
      user_id: 1,
      email: "<a&b@example.com>",
      note: "l1\u2028l2 zoë",
      path: "/todos%20x%40y",
      SQL: INSERT,
    },
  },
  {
    by: "bemi-rails, with query log tags behind it",
    statement: `${INSERT} /*Bemi {"user_id":1} Bemi*/ /*application='Todo',path='%2Ftodos'*/ /**/;`,
    context: { user_id: 1, SQL: INSERT },
  },
  {
    by: "bemi-rails, without a context",
    statement: `${INSERT} /*Bemi null Bemi*/`,
    context: { SQL: INSERT },
  },
  {
    by: "bemi-prisma, src/index.ts",
    statement: `${INSERT} /*Bemi {"userId":1,"email":"zoë@example.com","q":"a/b /x"} Bemi*/`,
    context: { userId: 1, email: "zoë@example.com", q: "a/b /x", SQL: INSERT },
  },
  {
    by: "bemi-prisma with injectSqlInContext",
    statement: `${INSERT} /*Bemi {"SQL":"INSERT INTO todos (task) VALUES ($1)","n":"%40"} Bemi*/`,
    context: { SQL: "INSERT INTO todos (task) VALUES ($1)", n: "%40" },
  },
  {
    by: "bemi-typeorm, src/index.ts: onto whatever the client gets, here behind its semicolon",
    statement: `${INSERT}; /*Bemi {"userId":1} Bemi*/`,
    context: { userId: 1, SQL: INSERT },
  },
  {
    by: "bemi-typeorm, without a context",
    statement: `${INSERT} /*Bemi undefined Bemi*/`,
    context: { SQL: INSERT },
  },
  {
    by: "bemi-mikro-orm and bemi-io-drizzle, src/index.ts",
    statement: `${INSERT} /*Bemi {"userId":1,"path":"/todos?q=%40"} Bemi*/`,
    context: { userId: 1, path: "/todos?q=%40", SQL: INSERT },
  },
  {
    by: "bemi-sqlalchemy, bemi.py",
    statement:
      `${INSERT} /*Bemi {"email": "zo\\u00eb@example.com", "SQL": "INSERT INTO todos (task) VALUES ($1)"} Bemi*/`,
    context: { email: "zoë@example.com", SQL: "INSERT INTO todos (task) VALUES ($1)" },
  },
  {
    by: "bemi-sqlalchemy through psycopg2, which puts a value into the copy of the statement as well",
    statement: `INSERT INTO todos (task) VALUES ('say "hi"') ` +
      `/*Bemi {"user_id": 1, "SQL": "INSERT INTO todos (task) VALUES ('say "hi"')"} Bemi*/`,
    context: { user_id: 1, SQL: `INSERT INTO todos (task) VALUES ('say "hi"')` },
  },
];

const NOT_EMITTED: readonly string[] = [
  `insert into todos (task) values ('/*Bemi {"user_id": 1} Bemi*/')`,
  `insert into todos (task) values ('/*Bemi {"user_id": 1} Bemi*/ /*') /*tag*/`,
  `insert into todos (task) values ('/*Bemi {"user_id": 1} Bemi*/ /*') -- tag */`,
  `insert into todos (task) values ('/*Bemi {"user_id": 1} Bemi*/ /*') /* a /* b */ */`,
  `insert into todos (task) values ('x') ${"/**/".repeat(20)}`,
];

async function todos(database: TestDatabase, capture: "trigger" | "wal"): Promise<void> {
  await install(database.db);
  if (capture === "wal") await createSlot(database.db);
  await database.port.execute(TODOS);
  await track(database.db, "todos", { capture });
}

onEachDatabase("the comments of other languages' Bemi packages", (open, server) => {
  for (const capture of server === "PGlite" ? ["trigger"] as const : ["trigger", "wal"] as const) {
    test(`are stored as they were meant, captured by ${capture}`, async () => {
      await using database = await open();
      await todos(database, capture);
      for (const { statement } of EMITTED) await database.port.execute(statement);
      for (const statement of NOT_EMITTED) await database.port.execute(statement);
      if (capture === "wal") {
        await runWorker({ source: database.url as string, once: true }).finished;
      }
      const contexts = (await seen(database.port)).map(({ context: { db: _, ...context } }) => context);
      for (const [i, { by, context }] of EMITTED.entries()) expect(contexts[i], by).toEqual(context);
      expect(contexts.slice(EMITTED.length)).toEqual(NOT_EMITTED.map((SQL) => ({ SQL })));
    });

    test(`are kept where statements are not, but for the statement in them, captured by ${capture}`, async () => {
      await using database = await open();
      const { db, port } = database;
      await todos(database, capture);
      await port.execute("create table people (id int, secret text)");
      await track(db, "people", { capture, mask: ["secret"] });
      await port.execute(
        `insert into todos (id, task) values (1, 'a') /*Bemi {"n": 1, "SQL": "insert"} Bemi*/`,
      );
      if (capture === "wal") await runWorker({ source: database.url as string, once: true }).finished;
      const [change] = await seen(port);
      expect(change?.context).toMatchObject({ n: 1 });
      expect(change?.context).not.toHaveProperty("SQL");
    });

    test(`reach what foreign keys and triggers write, of their own statement alone, captured by ${capture}`, async () => {
      await using database = await open();
      const { port } = database;
      await todos(database, capture);
      // `told` is written by an AFTER trigger, `by_row` from within that by another, and `unseen` is not tracked.
      await port.execute(
        `create table notes (id int primary key, todo bigint references todos on delete cascade);
        create table told (n int); create table by_row (n int); create table unseen (n int);
        create function tell() returns trigger language plpgsql as $$ begin
          insert into told select n from generate_series(1, 2) as n; return null; end $$;
        create function tell_more() returns trigger language plpgsql as $$ begin insert into by_row values (new.n); return new; end $$;
        create trigger tell after delete on todos for each row execute function tell();
        create trigger tell after insert on unseen for each row execute function tell();
        create trigger tell before insert on told for each row execute function tell_more();
        insert into todos (id, task) values (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd');
        insert into notes select id, id from todos`,
      );
      for (const table of ["notes", "told", "by_row"]) await track(database.db, table, { capture });
      const says = (n: number): string => `/*Bemi {"n": ${n}} Bemi*/`;
      await port.transaction(async (tx) => {
        await tx.execute(`delete from todos where id = 1 ${says(1)}`);
        await tx.execute("delete from todos where id = 2");
        await tx.execute("savepoint s");
        await tx.execute(`delete from todos where id = 3 ${says(3)}`);
        await tx.execute("rollback to s");
        await tx.execute(`insert into unseen values (1) ${says(4)}`);
        await tx.query("select set_config('bemi.context', $1, true)", ['{"n":5}']);
        await tx.execute(`delete from todos where id = 4 ${says(6)}`);
      });
      if (capture === "wal") await runWorker({ source: database.url as string, once: true }).finished;
      const found = await port.query<{ table: string; said: unknown; count: string }>(`
        select "table", context -> 'n' as said, count(*)::text as count from ${BEMI}.changes
        where transaction_id = (select max(transaction_id) from ${BEMI}.changes) group by 1, 2 order by 1, 2`);
      expect(found.map(({ table, said, count }) => `${table} ${said} ${count}`)).toEqual([
        ...["1 2", "4 2", "5 2", "null 2"].map((one) => `by_row ${one}`),
        ...["1 1", "5 1", "null 1"].map((one) => `notes ${one}`),
        ...["1 1", "5 1", "null 1"].map((one) => `todos ${one}`),
        ...["1 2", "4 2", "5 2", "null 2"].map((one) => `told ${one}`),
      ]);
    });
  }

  test("are joined by what @bemi-db/supabase-js sets for the session, as the application's context", async () => {
    await using database = await open();
    await todos(database, "trigger");
    await database.port.transaction(async (tx) => {
      // What its bemi_set_context(text), called by RPC, does: bemi-supabase-js, src/cli.ts.
      await tx.query("select set_config('bemi.context', $1, false)", ['{"user_id":5}']);
      await tx.execute(INSERT);
      await tx.execute("select set_config('bemi.context', '', false)");
    });
    expect((await seen(database.port)).map(({ context }) => context.user_id)).toEqual([5]);
  });

  test("are found in the view, as Rails' Bemi::Change asks for them", async () => {
    await using database = await open();
    await todos(database, "trigger");
    for (const user of [1, 2]) {
      await database.port.execute(`${INSERT} /*Bemi {"user_id":${user},"nested":{"a":[1,2]}} Bemi*/`);
    }
    await database.port.execute(`UPDATE todos SET task = 'y' WHERE id = 1 /*Bemi {"user_id":1} Bemi*/`);
    // Scopes of Bemi::ChangeQueryHelpers, as ActiveRecord writes them out.
    for (
      const [where, keys] of [
        [`(context @> '{"user_id":1}')`, ["CREATE 1", "UPDATE 1"]],
        [`(context @> '{"nested":{"a":[2]}}') AND "changes"."operation" = 'CREATE'`, [
          "CREATE 1",
          "CREATE 2",
        ]],
        [`(before @> '{"task":"x"}')`, ["UPDATE 1"]],
        [`(after @> '{"task":"y"}') AND "changes"."primary_key" = '1'`, ["UPDATE 1"]],
      ] as const
    ) {
      const rows = await database.port.query<{ operation: string; primary_key: string }>(
        `SELECT "changes".* FROM "changes" WHERE ${where} ORDER BY "changes"."committed_at" ASC`,
      );
      expect(rows.map((row) => `${row.operation} ${row.primary_key}`), where).toEqual(keys);
    }
  });

  test("mean the same to the worker, where another Bemi's trigger sends them bare", async () => {
    await using database = await open();
    await install(database.db);
    const piece = fc.constantFrom(
      ...[
        '{"a": "',
        '", "SQL": "',
        '"}',
        "%40",
        "%%",
        "%",
        "%2A",
        "%2a",
        "%20",
        "@",
        "x",
        "{}",
        "null",
        '"',
        "\\",
        " ",
        "[1]",
        "é",
      ],
    );
    const comments = await fc.sample(
      fc.oneof(
        fc.array(piece, { maxLength: 12 }).map((pieces) => pieces.join("")),
        fc.array(piece, { maxLength: 8 }).map((pieces) => `{"a": "${pieces.join("")}", "SQL": "%s"}`),
      ),
      400,
    );
    const rows = await database.port.query<{ mine: string; theirs: string | null }>(
      `select c as mine, ${BEMI}.comment_object(c)::jsonb::text as theirs
      from jsonb_array_elements_text($1::text::jsonb) with ordinality as t (c, n) order by n`,
      [JSON.stringify(comments)],
    );
    let objects = 0;
    for (const { mine, theirs } of rows) {
      const worker = parseBareContext(Buffer.from(mine));
      if (theirs !== null) objects++;
      expect(worker === undefined ? null : JSON.parse(worker), mine).toEqual(theirs && JSON.parse(theirs));
    }
    expect(objects).toBeGreaterThan(20);
  });
});
