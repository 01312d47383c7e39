import { expect, test } from "vitest";
import { install, rolesSql, seal, track } from "../src/install/mod.ts";
import { createSlot, runWorker } from "../src/worker/mod.ts";
import { onEachServer } from "./support/databases.ts";
import { ownRoles } from "./support/roles.ts";
import { seen } from "./support/todos.ts";

onEachServer("the roles of least privilege", (open) => {
  test("the application writes, the worker works, the reader reads, and none can do another's", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    await createSlot(db);
    await port.execute("create table todos (id int generated always as identity primary key, task text)");
    await track(db, "todos", { capture: "wal" });
    await seal(db);
    await port.execute(ownRoles("granted", rolesSql()));
    // Once more, as for another database of the cluster.
    await port.execute(ownRoles("granted", rolesSql()));
    try {
      await port.execute(
        `alter role granted_application login; alter role granted_reader login; alter role granted_worker login;
        create table lists (id int primary key)`,
      );
      const as = (role: string): string => database.url.replace("postgres@", `${role}@`);
      const app = database.connect({ username: "granted_application", max: 1 });
      await app`insert into todos (task) values ('a')`;
      await app`insert into lists values (1)`;
      // What only the database may say, said in the middle of a statement, after the trigger: in the right form.
      for (const seal of [null, "0".repeat(64)]) {
        await app`
          insert into todos (task) select 'b' where pg_logical_emit_message(true, '_bemi', format(
            '1%s %s %s %s %L %L %L %L %L %L %L ', null, 'todos'::regclass::oid, 1, 'INSERT', 'postgres', 'postgres', '',
            '{"user_id": 1}', null, null, ${seal}::text)) is not null`;
      }
      await runWorker({ source: as("granted_worker"), once: true }).finished;
      const changes = await seen(port);
      expect(changes.map(({ key, context }) => [key, (context.db as { user: string }).user, context.user_id]))
        .toEqual([
          ["1", "granted_application", undefined],
          ["2", "granted_application", undefined],
          ["3", "granted_application", undefined],
        ]);
      expect(JSON.stringify(changes)).not.toContain((await db`select secret from bemi.seal`)[0]?.secret);

      const reader = database.connect({ username: "granted_reader" });
      expect(await reader`select primary_key from changes order by 1`).toHaveLength(3);
      const worker = database.connect({ username: "granted_worker" });
      for (
        const [role, statement] of [
          [app, "select from bemi.changes"],
          [app, "select from public.changes"],
          [app, "insert into bemi.changes select"],
          [app, "select secret from bemi.seal"],
          [app, "select bemi.read_seal()"],
          [app, "select bemi.untrack('todos')"],
          [app, "update bemi.settings set track_all = true"],
          [app, 'alter table todos disable trigger "!bemi_context"'],
          [app, "alter publication bemi drop table todos"],
          [app, "drop table todos"],
          [app, "truncate todos"],
          [reader, "delete from bemi.changes"],
          [reader, "select from bemi.checkpoints"],
          [reader, "select secret from bemi.seal"],
          [reader, "select from todos"],
          [worker, "delete from bemi.changes"],
          [worker, "update bemi.changes set after = '{}'"],
          [worker, "truncate bemi.changes"],
          [worker, "select secret from bemi.seal"],
          [worker, "select bemi.untrack('public.todos')"],
          [worker, "select from public.todos"],
        ] as const
      ) await expect(role.unsafe(statement), statement).rejects.toMatchObject({ code: "42501" });
      // As the owner's own transaction, which lacks nothing.
      await port.execute("insert into todos (task) values ('d')");
      await runWorker({ source: as("granted_worker"), once: true }).finished;
      expect(await seen(port)).toHaveLength(4);
    } finally {
      await port.execute(`drop owned by granted_application, granted_reader, granted_worker;
        drop role granted_application, granted_reader, granted_worker`);
    }
  });

  test("a role that lacks rights is told which role has them", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    await createSlot(db);
    await port.execute("create role bemi_nobody login");
    const source = database.url.replace("postgres@", "bemi_nobody@");
    const refusal = {
      code: "privilege_missing",
      hint: expect.stringMatching(/REPLICATION.*bemi generate roles/) as string,
    };
    try {
      await expect(runWorker({ source, once: true }).finished).rejects.toMatchObject(refusal);
      await port.execute(
        `grant usage on schema bemi to bemi_nobody; grant all on all tables in schema bemi to bemi_nobody;
        grant execute on all functions in schema bemi to bemi_nobody`,
      );
      for (const mode of ["poll", "stream"] as const) {
        await expect(runWorker({ source, once: true, mode }).finished).rejects.toMatchObject(refusal);
      }
      // REPLICATION and these rights are all it takes: none on the tables.
      await port.execute("alter role bemi_nobody replication; create table todos (id int primary key)");
      await track(db, "todos", { capture: "wal" });
      await port.execute("insert into todos values (1)");
      await runWorker({ source, once: true, mode: "stream" }).finished;
      expect(await seen(port)).toHaveLength(1);
    } finally {
      await port.execute("drop owned by bemi_nobody; drop role bemi_nobody");
    }
  });

  test("a seal waits for transactions that began before it, and takes their messages", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    await createSlot(db);
    await port.execute("create table todos (id int primary key)");
    await track(db, "todos", { capture: "wal" });
    const older = await database.connect({ max: 1 }).reserve();
    await older.unsafe("begin isolation level repeatable read; insert into todos values (1)");
    await expect(seal(db, { patience: 100 })).rejects.toMatchObject({ code: "lock_timeout" });
    await older.unsafe(
      "select set_config('bemi.context', '{\"user_id\": 7}', true); insert into todos values (2); commit",
    );
    older.release();
    await seal(db);
    await seal(db);
    await port.execute("insert into todos values (3)");
    await runWorker({ source: database.url, once: true }).finished;
    expect(
      (await seen(port)).map((
        { key, context },
      ) => [key, context.user_id, (context.db as { user: string }).user]),
    ).toEqual([
      ["1", undefined, "postgres"],
      ["2", 7, "postgres"],
      ["3", undefined, "postgres"],
    ]);
  });
});
