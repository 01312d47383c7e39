import { expect, test } from "vitest";
import { onEachDatabase, onEachServer, type TestDatabase } from "./support/databases.ts";
import { install, track } from "./support/installation.ts";
import { seen, TODOS } from "./support/todos.ts";

async function todos(database: TestDatabase): Promise<void> {
  await install(database.db);
  await database.port.execute(TODOS);
  await track(database.db, "todos");
}

/** The context of the last change, without what the session itself adds. */
async function last(database: TestDatabase): Promise<Record<string, unknown>> {
  const { db: _, ...context } = (await seen(database.port)).at(-1)?.context ?? {};
  return context;
}

/** Runs statements in one transaction, with settings local to it. */
function within(database: TestDatabase, settings: Record<string, string>, statement: string): Promise<void> {
  return database.port.transaction(async (tx) => {
    for (const [name, value] of Object.entries(settings)) {
      await tx.query("select set_config($1, $2, true)", [name, value]);
    }
    await tx.execute(statement);
  });
}

onEachDatabase("the context of a statement", (open) => {
  test("is a comment at its very end, as other languages' Bemi packages write it", async () => {
    await using database = await open();
    await todos(database);
    const insert = "insert into todos (task) values ('x')";
    for (const end of ["", ";", " ;\n", "\t"]) {
      await database.port.execute(`${insert} /*Bemi {"user_id": 1, "deep": {"a": [1]}} Bemi*/${end}`);
      expect(await last(database)).toEqual({ user_id: 1, deep: { a: [1] }, SQL: insert });
    }
  });

  test("is never read from a literal, from the middle, or from what is no JSON object", async () => {
    await using database = await open();
    await todos(database);
    for (
      const statement of [
        `insert into todos (task) values ('/*Bemi {"user_id": 1} Bemi*/')`,
        `insert /*Bemi {"user_id": 1} Bemi*/ into todos (task) values ('x')`,
        `insert into todos (task) values ('x') /*Bemi {"user_id": 1} */`,
        `insert into todos (task) values ('x') /*Bemi [1] Bemi*/`,
        `insert into todos (task) values ('x') /*Bemi {"user_id": Bemi*/`,
        `insert into todos (task) values ('x') -- /*Bemi {"user_id": 1} Bemi*/ no`,
      ]
    ) {
      await database.port.execute(statement);
      expect(await last(database), statement).toEqual({ SQL: statement });
    }
    const both =
      `insert into todos (task) values ('/*Bemi {"user_id": 1} Bemi*/') /*Bemi {"user_id": 2} Bemi*/`;
    await database.port.execute(both);
    expect(await last(database)).toMatchObject({ user_id: 2 });
  });

  test("prefers the setting, keeps the application's own SQL, and cannot forge what the database adds", async () => {
    await using database = await open();
    await todos(database);
    await database.port.transaction(async (tx) => {
      const context = { user_id: 1, SQL: "mine", db: { user: "forged" }, jwt: { sub: "forged" }, client: 1 };
      await tx.query("select set_config('bemi.context', $1, true)", [JSON.stringify(context)]);
      await tx.execute(`insert into todos (task) values ('x') /*Bemi {"user_id": 2} Bemi*/`);
    });
    const context = (await seen(database.port)).at(-1)?.context ?? {};
    const [facts] = await database.port.query<{ user: string; pid: number }>(
      `select session_user as user, pg_backend_pid() as pid`,
    );
    expect(context).toEqual({
      user_id: 1,
      SQL: "mine",
      db: {
        user: facts?.user,
        role: facts?.user,
        pid: expect.any(Number),
        application_name: expect.any(String),
      },
    });
  });

  test("keeps PostgREST's verified claims apart from the header that the browser wrote", async () => {
    await using database = await open();
    await todos(database);
    await within(database, {
      "request.jwt.claims": '{"sub": "7", "role": "authenticated"}',
      "request.headers": JSON.stringify({ "x-bemi-context": '{"page": "/todos"}', cookie: "secret" }),
    }, "insert into todos (task) values ('x')");
    expect(await last(database)).toMatchObject({
      jwt: { sub: "7", role: "authenticated" },
      client: { page: "/todos" },
    });
    await within(database, {
      "request.jwt.claims": "no json",
      "request.headers": '{"x-bemi-context": "[1]"}',
    }, "insert into todos (task) values ('y')");
    expect(Object.keys(await last(database))).toEqual(["SQL"]);
  });

  test("that is no JSON object is marked, and the write commits", async () => {
    await using database = await open();
    await todos(database);
    for (const wrong of ["no json", "[1]", "7", "{", "null", '{"a": "\\u0000"}']) {
      await within(database, { "bemi.context": wrong }, "insert into todos (task) values ('x')");
      const context = (await seen(database.port)).at(-1)?.context as { db: Record<string, unknown> };
      expect(context.db.context_error, wrong).toMatch(/not a JSON object/);
    }
    expect(await seen(database.port)).toHaveLength(6);
  });

  test("names the role in force and cuts a long statement", async () => {
    await using database = await open();
    await todos(database);
    const role = `writer_${process.pid}_${database.server.toLowerCase()}`;
    await database.port.execute(`create role ${role}; grant insert on todos to ${role}`);
    await within(database, { role }, `insert into todos (task) values ('${"x".repeat(5000)}')`);
    const context = (await seen(database.port)).at(-1)?.context as { SQL: string; db: { role: string } };
    expect(context.db.role).toBe(role);
    expect(context.SQL).toHaveLength(1000);
    await database.port.execute(`drop owned by ${role}; drop role ${role}`);
  });
});

onEachServer("a foreign table", (open) => {
  test("is captured row by row", async () => {
    await using database = await open();
    await install(database.db);
    const { hostname, port, pathname } = new URL(database.url);
    const [available] = await database.db`select from pg_available_extensions where name = 'postgres_fdw'`;
    expect(available, "the server has no postgres_fdw").toBeDefined();
    await database.port.execute(`
      create extension postgres_fdw;
      create server here foreign data wrapper postgres_fdw
        options (host '${hostname}', port '${port}', dbname '${pathname.slice(1)}');
      create user mapping for current_user server here options (user 'postgres', password_required 'false');
      create table remote (id int primary key, task text);
      create foreign table todos (id int not null, task text) server here options (table_name 'remote')`);
    await track(database.db, "todos");
    await database.port.execute("insert into todos values (1, 'a'), (2, 'b')");
    await database.port.execute("update todos set task = 'c' where id = 1");
    await database.port.execute("delete from todos where id = 2");
    expect(
      (await seen(database.port)).map((
        { operation, table, before, after },
      ) => [operation, table, before, after]),
    )
      .toEqual([
        ["CREATE", "todos", {}, { id: 1, task: "a" }],
        ["CREATE", "todos", {}, { id: 2, task: "b" }],
        ["UPDATE", "todos", { id: 1, task: "a" }, { id: 1, task: "c" }],
        ["DELETE", "todos", { id: 2, task: "b" }, {}],
      ]);
  });
});
