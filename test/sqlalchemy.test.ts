import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { onEachServer } from "./support/databases.ts";
import { BEMI, createSlot, install, runWorker, track, uninstall } from "./support/installation.ts";
import { python } from "./support/python.ts";
import { seen, TODOS } from "./support/todos.ts";

const app = fileURLToPath(new URL("sqlalchemy/app.py", import.meta.url));
const sqlalchemy = python("sqlalchemy", [
  "bemi-sqlalchemy==0.0.2",
  "sqlalchemy==2.0.*",
  "alembic==1.*",
  "starlette<1",
  "psycopg2-binary==2.9.*",
  "psycopg[binary]==3.*",
]);

const EXPECTED = [
  ["CREATE 1", { user_id: 1, email: "zoë@example.com", path: "/a b" }],
  ["CREATE 2", { user_id: 2 }],
  ["CREATE 3", { user_id: 2 }],
  ["UPDATE 1", { user_id: 3 }],
  ["DELETE 2", { user_id: 4 }],
  ["CREATE 4", {}],
];

onEachServer("bemi-sqlalchemy on SQLAlchemy", (open) => {
  // psycopg2 puts values into the text, also into the comment's copy of it; psycopg binds them.
  test.skipIf(!sqlalchemy).each(
    [
      ["trigger", "psycopg2"],
      ["wal", "psycopg2"],
      ["wal", "psycopg"],
    ] as const,
  )("its contexts come with the changes, captured by %s, through %s", async (capture, DRIVER) => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    if (capture === "wal") await createSlot(db);
    await port.execute(TODOS);
    await track(db, "todos", { capture });
    sqlalchemy?.run(app, ["write"], { DATABASE_URL: database.url, DRIVER });
    if (capture === "wal") await runWorker({ source: database.url, once: true }).finished;
    const changes = await seen(port);
    expect(
      changes.map(({ operation, key, context: { db: _, SQL, ...context } }) => {
        expect(SQL).toMatch(/^(INSERT|UPDATE|DELETE) /);
        return [`${operation} ${key}`, context];
      }),
    ).toEqual(EXPECTED);
  });

  test.skipIf(!sqlalchemy)("its triggers, where they still are, give their rows a context", async () => {
    await using database = await open();
    const { db, port } = database;
    await port.execute(TODOS);
    const env = { DATABASE_URL: database.url, DRIVER: "psycopg2" };
    sqlalchemy?.run(app, ["migrate"], env);
    await install(db);
    await createSlot(db);
    await track(db, "todos", { capture: "wal" });
    // As where ours are not yet, or are off.
    await port.execute(`do $$ declare v record; begin
      perform set_config('bemi.reconciling', 'on', true);
      for v in select name from ${BEMI}.own_triggers where relation = 'todos'::regclass loop
        execute format('drop trigger %I on todos', v.name); end loop; end $$`);
    sqlalchemy?.run(app, ["write"], env);
    await runWorker({ source: database.url, once: true, acceptBemiMessages: true }).finished;
    expect(
      (await seen(port)).map((
        { operation, key, context: { SQL: _, ...context } },
      ) => [`${operation} ${key}`, context]),
    ).toEqual(
      EXPECTED.map(([change, context]) => [
        change,
        change === "CREATE 4" ? { db: { context_error: "no message" } } : context,
      ]),
    );
    await uninstall(db);
  });
});
