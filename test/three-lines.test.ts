import { readFile } from "node:fs/promises";
import type { Hono } from "hono";
import type postgres from "postgres";
import { expect, test } from "vitest";
import { onEachServer } from "./support/databases.ts";
import { install, track } from "./support/installation.ts";
import { seen, TODOS } from "./support/todos.ts";
import { todoApp as appWith } from "./three-lines/with.ts";
import { todoApp as appWithout } from "./three-lines/without.ts";

const lines = async (name: string): Promise<string[]> =>
  (await readFile(new URL(`./three-lines/${name}.ts`, import.meta.url), "utf8")).trimEnd().split("\n");

test("an application has three lines more with Bemi, and wraps its client in a fourth", async () => {
  const [without, withBemi] = [await lines("without"), await lines("with")];
  expect(withBemi.length - without.length).toBe(3);
  const own = withBemi.filter((line) => !without.includes(line));
  const [wrapping, ...more] = own.sort((a) => a.includes("withBemi(") ? -1 : 1);
  expect(more).toHaveLength(3);
  const rest = withBemi.filter((line) => !more.includes(line)).map((line) =>
    line === wrapping ? line.replace(/withBemi\((.*)\);$/, "$1;") : line
  );
  expect(rest).toEqual(without);
});

/** What a client sees of it: the answers, one by one. */
async function answers(app: Hono): Promise<unknown[]> {
  const ask = async (user: string, method: string, path: string, body?: object): Promise<unknown> => {
    const response = await app.request(path, {
      method,
      headers: { "x-user-id": user, "content-type": "application/json" },
      ...(body ? { body: JSON.stringify(body) } : {}),
    });
    return [response.status, await response.text()];
  };
  return [
    await ask("1", "POST", "/todos", { task: "Sleep" }),
    await ask("2", "POST", "/todos", { task: "Eat" }),
    await ask("3", "PUT", "/todos/1"),
    await ask("4", "GET", "/todos"),
    await ask("5", "POST", "/todos", { task: null }),
  ];
}

onEachServer("the application with and without them", (open) => {
  test("answers the same, and with them each change says whose request it was", async () => {
    const run = async (todoApp: (url: string) => { app: Hono; sql: postgres.Sql }) => {
      await using database = await open();
      await install(database.db);
      await database.port.execute(TODOS);
      await track(database.db, "todos");
      const { app, sql } = todoApp(database.url);
      app.onError((_error, c) => c.text("failed", 500));
      try {
        return { told: await answers(app), changes: await seen(database.port) };
      } finally {
        await sql.end();
      }
    };
    const [without, withBemi] = [await run(appWithout), await run(appWith)];
    expect(withBemi.told).toEqual(without.told);
    expect(withBemi.told.at(-2)).toEqual([
      200,
      '[{"task":"Sleep","is_completed":true},{"task":"Eat","is_completed":false}]',
    ]);
    const contexts = ({ changes }: typeof without): unknown[] =>
      changes.map(({ operation, key, context: { user_id, endpoint, method } }) => [
        operation,
        key,
        user_id,
        endpoint,
        method,
      ]);
    expect(contexts(without)).toEqual([
      ["CREATE", "1", undefined, undefined, undefined],
      ["CREATE", "2", undefined, undefined, undefined],
      ["UPDATE", "1", undefined, undefined, undefined],
    ]);
    expect(contexts(withBemi)).toEqual([
      ["CREATE", "1", "1", "/todos", "POST"],
      ["CREATE", "2", "2", "/todos", "POST"],
      ["UPDATE", "1", "3", "/todos/1", "PUT"],
    ]);
  });
});
