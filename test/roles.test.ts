import { expect, test } from "vitest";
import { install, rolesSql, track } from "../src/install/mod.ts";
import { createSlot, runWorker } from "../src/worker/mod.ts";
import { onEachServer } from "./support/databases.ts";
import { seen } from "./support/todos.ts";

onEachServer("the roles of least privilege", (open) => {
  test("the application writes, the worker works, the reader reads, and none can do another's", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    await createSlot(db);
    await port.execute("create table todos (id int primary key, task text)");
    await track(db, "todos", { capture: "wal" });
    await port.execute(rolesSql());
    await port.execute(
      "create role bemi_app login; alter role bemi_reader login; alter role bemi_worker login",
    );
    await port.execute("grant insert, update, delete, select on todos to bemi_app");
    const as = (role: string): string => database.url.replace("postgres@", `${role}@`);
    try {
      const app = database.connect({ username: "bemi_app" });
      await app`insert into todos values (1, 'a')`;
      await runWorker({ source: as("bemi_worker"), once: true }).finished;
      expect(await seen(port)).toMatchObject([{ key: "1", context: { db: { user: "bemi_app" } } }]);
      const reader = database.connect({ username: "bemi_reader" });
      expect(await reader`select primary_key from bemi.changes`).toEqual([{ primary_key: "1" }]);

      const worker = database.connect({ username: "bemi_worker" });
      for (
        const [role, statement] of [
          [app, "select from bemi.changes"],
          [app, "insert into bemi.changes select"],
          [app, "select bemi.untrack('todos')"],
          [app, 'alter table todos disable trigger "!bemi_context"'],
          [reader, "delete from bemi.changes"],
          [reader, "select from bemi.checkpoints"],
          [reader, "select from todos"],
          [worker, "delete from bemi.changes"],
          [worker, "update bemi.changes set after = '{}'"],
          [worker, "truncate bemi.changes"],
          [worker, "select bemi.untrack('todos')"],
          [worker, "select from todos"],
        ] as const
      ) await expect(role.unsafe(statement), statement).rejects.toMatchObject({ code: "42501" });
    } finally {
      await port.execute(
        "drop owned by bemi_app, bemi_reader, bemi_worker; drop role bemi_app, bemi_reader, bemi_worker",
      );
    }
  });
});
