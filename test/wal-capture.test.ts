import { expect, test } from "vitest";
import { install, track } from "../src/install/mod.ts";
import { createSlot, runWorker } from "../src/worker/mod.ts";
import { onEachServer, type TestDatabase } from "./support/databases.ts";
import { seen, TODOS } from "./support/todos.ts";

type Real = TestDatabase & { url: string };

async function todos(database: Real, tables: readonly string[] = ["todos", "lists"]): Promise<void> {
  await install(database.db);
  await createSlot(database.db);
  await database.port.execute(TODOS);
  for (const table of tables) await track(database.db, table, { capture: "wal" });
}

/** Everything that is committed, into the log. */
async function catchUp(database: Real): Promise<void> {
  await runWorker({ source: database.url, once: true }).finished;
}

onEachServer("capture from the WAL", (open) => {
  test("each change appears once, with before, after and its context", async () => {
    await using database = await open();
    await todos(database);
    await database.port.transaction(async (tx) => {
      await tx.query(`select set_config('bemi.context', '{"user_id": 1}', true)`);
      await tx.execute("insert into todos (task) values ('Sleep'), ('Eat')");
      await tx.execute("update todos set is_completed = true where id = 1");
      await tx.query(`select set_config('bemi.context', '{"user_id": 2}', true)`);
      await tx.execute("delete from todos where id = 2");
    });
    await catchUp(database);
    await catchUp(database);
    const sleep = { id: 1, task: "Sleep", is_completed: false, list_id: null };
    const eat = { ...sleep, id: 2, task: "Eat" };
    expect((await seen(database.port)).map(({ operation, key, before, after, context }) => ({
      operation,
      key,
      before,
      after,
      user: context.user_id,
      SQL: context.SQL,
    }))).toEqual([
      {
        operation: "CREATE",
        key: "1",
        before: {},
        after: sleep,
        user: 1,
        SQL: expect.stringMatching(/^insert/),
      },
      {
        operation: "CREATE",
        key: "2",
        before: {},
        after: eat,
        user: 1,
        SQL: expect.stringMatching(/^insert/),
      },
      {
        operation: "UPDATE",
        key: "1",
        before: sleep,
        after: { ...sleep, is_completed: true },
        user: 1,
        SQL: expect.stringMatching(/^update/),
      },
      {
        operation: "DELETE",
        key: "2",
        before: eat,
        after: {},
        user: 2,
        SQL: expect.stringMatching(/^delete/),
      },
    ]);
  });
});
