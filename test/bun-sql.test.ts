import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { onEachServer, type TestDatabase } from "./support/databases.ts";
import { install, track } from "./support/installation.ts";
import { expectIsolated } from "./support/isolation.ts";
import { OUTCOME } from "./support/requests.ts";
import { seen, TODOS } from "./support/todos.ts";
// @ts-expect-error plain JavaScript, as it runs before anything is built
import { tool } from "./tools/install.mjs";

const folder = fileURLToPath(new URL("runtimes/", import.meta.url));

/** Runs one part of runtimes/bun-sql.ts under real Bun. */
function bun(part: string, database: TestDatabase): unknown {
  const executable = (tool as (name: string) => string)("bun");
  const { stdout, stderr, status } = spawnSync(executable, ["bun-sql.ts", part], {
    cwd: folder,
    encoding: "utf8",
    env: { ...process.env, DATABASE_URL: database.url ?? "" },
  });
  expect(status, stderr).toBe(0);
  return JSON.parse(stdout);
}

onEachServer("withBemi for Bun's SQL", (open) => {
  const setUp = async (): ReturnType<typeof open> => {
    const database = await open();
    await install(database.db);
    await database.port.execute(TODOS);
    await track(database.db, "todos");
    return database;
  };
  const story = async (database: TestDatabase): Promise<string[]> =>
    (await seen(database.port)).map((change) => `${change.after.task} ${change.context.user_id ?? "-"}`);

  test("every way to write carries the context, and gives what Bun gives", async () => {
    await using database = await setUp();
    expect(bun("everyWay", database)).toEqual([
      [{ id: 1, task: "tagged" }],
      [["x"], ["y"]],
      [[{ one: 1 }], [{ task: "unsafe" }]],
      [{ task: "with $1" }],
      [{ task: "file" }],
      [{ task: "simple" }],
    ]);
    const tasks = ["tagged", "x", "y", "unsafe", "with $1", "file", "simple"];
    expect(await story(database)).toEqual([...tasks.map((task) => `${task} 1`), "outside -"]);
  });

  test("a lazy query runs in the context in which it was made", async () => {
    await using database = await setUp();
    bun("lazy", database);
    expect(await story(database)).toEqual(["made 1", "returned 2", "made outside 3"]);
  });

  test("in a transaction each statement has the context in force, also behind savepoints", async () => {
    await using database = await setUp();
    bun("transactions", database);
    expect(await story(database)).toEqual(
      ["a 1", "b 2", "c 3", "e -", "f 3", "g 3", "h -", "i 5", "j -", "alone 6", "k 6"],
    );
  });

  test("errors, cancelled queries and what cannot run in a transaction end as without", async () => {
    await using database = await setUp();
    await database.port.execute(
      `alter table todos add constraint once unique (task) deferrable initially deferred;
      create procedure complete() language plpgsql as $$ begin
        insert into todos (task) values ('called'); commit; end $$;
      create function add_todo() returns void language sql as $$ insert into todos (task) values ('function') $$`,
    );
    expect(bun("failures", database)).toEqual({
      codes: ["42703", "ok", "23505", "ok", "ok", "ok", "cancelled"],
      warnings: 1,
    });
    expect(await story(database)).toEqual(["twice 1", "called -", "goes on 1", "function 3"]);
  });

  test("a killed backend fails the statement alone", async () => {
    await using database = await setUp();
    expect(bun("killed", database)).toMatch(/Error$/);
    expect((await story(database)).sort()).toEqual([1, 2, 3, 4].map((user) => `alive ${user}`));
  });

  test("300 overlapping requests on 4 connections, half of them failing, never mix", async () => {
    await using database = await setUp();
    expect(bun("isolation", database)).toEqual({ outcome: OUTCOME, left: 0, around: null });
    await expectIsolated(database);
  });

  test.each(["drizzle", "drizzleWrapped"])("requests through %s over it never mix either", async (part) => {
    await using database = await setUp();
    expect(bun(part, database)).toBe(OUTCOME);
    await expectIsolated(database);
  });
});
