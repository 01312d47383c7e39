import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { onEachServer, type TestDatabase } from "./support/databases.ts";
import { BEMI, createSlot, install, runWorker, track, uninstall } from "./support/installation.ts";
import { python } from "./support/python.ts";
import { fingerprint } from "./support/fingerprint.ts";
import { seen, TODOS } from "./support/todos.ts";

const app = fileURLToPath(new URL("django/app.py", import.meta.url));
const django = python("django", ["django==5.2.*", "psycopg[binary]==3.*", "bemi-django==0.1.3"]);

function run(database: TestDatabase, args: readonly string[], env: Record<string, string> = {}): unknown {
  return django?.run(app, args, { DATABASE_URL: database.url as string, ...env });
}

const request = (email: string, body: object, query = ""): unknown[] => [email, `/todos${query}`, body];

const HOSTILE = `it's 100% /*Bemi {"email": "x"} Bemi*/`;

const REQUESTS = [
  request("zoë@example.com", { task: HOSTILE }, "?q=a%20b&c=d%40e"),
  request("a+b|c@example.com", { how: "bulk", task: ["Eat", "Repeat; now"] }),
  request("zoë@example.com", { how: "update", task: "Eat" }),
  request("c@example.com", { how: "raw", sql: "insert into todos (task) values ('50%')" }),
  request("c@example.com", { how: "raw", sql: "insert into todos (task) values ('semi');" }),
  request("d@example.com", { how: "many", task: ["m1", "m2"] }),
  request("e@example.com", { how: "undone", task: "never" }),
  request("<f>@example.com", { how: "delete", task: "Repeat; now" }),
];

const EXPECTED = [
  ["CREATE 1", "zoë@example.com"],
  ["CREATE 2", "a+b|c@example.com"],
  ["CREATE 3", "a+b|c@example.com"],
  ["UPDATE 2", "zoë@example.com"],
  ["CREATE 4", "c@example.com"],
  ["CREATE 5", "c@example.com"],
  ["CREATE 6", "d@example.com"],
  ["CREATE 7", "d@example.com"],
  ["DELETE 3", "<f>@example.com"],
];

onEachServer("bemi-django on Django", (open) => {
  test.skipIf(!django).each(
    [
      ["trigger", "{}"],
      ["wal", "{}"],
      // psycopg binds in the server then, and so doubled percents take another way.
      ["wal", '{"server_side_binding": true}'],
    ] as const,
  )(
    "its middleware's contexts come with the changes, captured by %s, with the options %s",
    async (capture, options) => {
      await using database = await open();
      const { db, port } = database;
      await install(db);
      if (capture === "wal") await createSlot(db);
      await port.execute(TODOS);
      await track(db, "todos", { capture });
      run(database, ["requests", JSON.stringify(REQUESTS)], { DATABASE_OPTIONS: options });
      if (capture === "wal") await runWorker({ source: database.url, once: true }).finished;
      const changes = await seen(port);
      expect(changes.map(({ operation, key, context }) => [`${operation} ${key}`, context.email]))
        .toEqual(EXPECTED);
      expect(changes[0]).toMatchObject({
        after: { task: HOSTILE },
        context: {
          path: "/todos?q=a%20b&c=d@e",
          method: "POST",
          SQL: `INSERT INTO "todos" ("task", "is_completed") VALUES (%s, %s) RETURNING "todos"."id"`,
        },
      });
      expect(changes[4]?.context.SQL).toBe("insert into todos (task) values ('50%')");
    },
  );

  test.skipIf(!django)("its model reads the view, as a role that may", async () => {
    await using database = await open();
    const { db, port } = database;
    const reader = `django_${process.pid}_${database.server}`;
    await install(db);
    await port.execute(TODOS);
    await track(db, "todos");
    run(database, ["requests", JSON.stringify(REQUESTS)]);
    await port.execute(`create role ${reader} login; grant select on changes, todos to ${reader}`);
    try {
      const read = run(database, ["changes", "zoë@example.com", "Eat"], { DATABASE_USER: reader });
      expect(read).toEqual({
        contains: [
          ["CREATE", "todos", "1", HOSTILE],
          ["UPDATE", "todos", "2", "Eat"],
        ],
        path: ["/todos", "/todos?q=a%20b&c=d@e"],
        not: 7,
        before: 1,
        record: [
          ["CREATE", { id: [null, 2], task: [null, "Eat"], is_completed: [null, false] }],
          ["UPDATE", { is_completed: [false, true] }],
        ],
        field: ["UPDATE"],
        total: 9,
      });
    } finally {
      await port.execute(`drop owned by ${reader}; drop role ${reader}`);
    }
  });

  test.skipIf(!django)(
    "its triggers, where they still are, give their rows a context, and no more",
    async () => {
      await using database = await open();
      const { db, port } = database;
      await port.execute(TODOS);
      run(database, ["migrate"]);
      const before = await fingerprint(port);
      // Theirs puts row triggers on new tables of public, and would fail the installation's under its search path.
      await install(db);
      await createSlot(db);
      await port.execute(`update ${BEMI}.settings set partitions_ahead = 5; select ${BEMI}.maintain()`);
      await track(db, "todos", { capture: "wal" });
      await port.execute("create table notes (id int primary key, body text)");
      await track(db, "notes", { capture: "wal" });
      // As where our triggers are not yet, or are off.
      await port.execute(`do $$ declare v record; begin
      perform set_config('bemi.reconciling', 'on', true);
      for v in select name from ${BEMI}.own_triggers where relation = 'todos'::regclass loop
        execute format('drop trigger %I on todos', v.name); end loop; end $$`);
      // Their trigger takes the first comment that it finds, also in a literal.
      run(database, ["requests", JSON.stringify(REQUESTS).replace(JSON.stringify(HOSTILE), '"Sleep"')]);
      await port.execute(
        `insert into notes values (1, 'x') /*Bemi {"email": "n@example.com", "db": {"user": "forged"}} Bemi*/`,
      );
      await port.execute("insert into todos (task) values ('by hand')");
      await runWorker({ source: database.url, once: true, acceptBemiMessages: true }).finished;
      const changes = await seen(port);
      expect(changes.map(({ operation, key, context }) => [`${operation} ${key}`, context.email])).toEqual([
        ...EXPECTED,
        ["CREATE 1", "n@example.com"],
        ["CREATE 9", undefined],
      ]);
      expect(changes[0]?.context.db).toBeUndefined();
      expect(changes.at(-2)?.context.db).toMatchObject({ user: "postgres" });
      expect(changes.at(-1)?.context).toEqual({ db: { context_error: "no message" } });
      await port.execute("drop table notes");
      await uninstall(db);
      expect(await fingerprint(port)).toEqual(before);
    },
  );
});
