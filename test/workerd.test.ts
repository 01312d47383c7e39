import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import type { PollResult } from "../src/worker/mod.ts";
import { onEachServer } from "./support/databases.ts";
import { createSlot, install, SCHEMA, track } from "./support/installation.ts";
import { seen } from "./support/todos.ts";
import { startWorkerd } from "./support/workerd.ts";

onEachServer("Cloudflare's workerd", (open) => {
  test("requests write with their contexts, and a cron brings them into the log", async () => {
    await using database = await open();
    const { db, port, url } = database;
    await install(db);
    await createSlot(db);
    await port.execute(
      "create table todos (id int generated always as identity primary key, task text, user_id text)",
    );
    await track(db, "todos", { capture: "wal" });
    const entry = fileURLToPath(new URL("runtimes/cron-worker.mjs", import.meta.url));
    await using worker = await startWorkerd(entry, { DATABASE_URL: url, SCHEMA });

    const users = Array.from({ length: 8 }, (_, i) => String(i + 1));
    const responses = await Promise.all(
      users.map((user) => worker.fetch(`/todo/${user}`, { headers: { "x-user": user } })),
    );
    expect(await Promise.all(responses.map((response) => response.text()))).toEqual(
      users.map(() => "written"),
    );
    // More than one fetch of a cursor, and more than one chunk of a COPY.
    await port.execute("insert into todos (task) select repeat('x', 500) from generate_series(1, 3000)");
    expect(await worker.scheduled()).toBe("ok");
    const results = await (await worker.fetch("/results")).json() as PollResult[];
    expect(results).toHaveLength(2);
    expect(results.some(({ isCaughtUp }) => isCaughtUp)).toBe(true);

    const changes = await seen(port);
    const told = changes.filter(({ after }) => after.user_id != null).map(({ operation, after, context }) => [
      operation,
      after.user_id,
      context.user_id,
      context.endpoint,
    ]);
    expect(told.sort()).toEqual(users.map((user) => ["CREATE", user, Number(user), `/todo/${user}`]));
    expect(changes.filter(({ after }) => after.task === "Sleep")).toHaveLength(8);
    for (const { after, context } of changes) {
      if (after.task === "Sleep") expect(context.endpoint).toBe(`/todo/${String(context.user_id)}`);
    }
    expect(changes.filter(({ after }) => String(after.task).startsWith("xxx"))).toHaveLength(3000);
    expect(results.reduce((sum, { written }) => sum + written, 0)).toBe(changes.length);
  });
});
