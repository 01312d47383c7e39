import { withContext } from "@bemi/core";
import { bemi } from "@bemi/core/fetch";
import { asOf, changes } from "@bemi/core/history";
import { install, track } from "@bemi/core/install";
import { withBemi } from "@bemi/core/pglite";
import type { PGlite } from "@electric-sql/pglite";
import { drizzle } from "drizzle-orm/pglite";
import { Kysely, PGliteDialect } from "kysely";
import { deepStrictEqual } from "node:assert/strict";
import {
  expectedChanges,
  OUTCOME,
  overlappingRequests,
  type RequestClient,
  type Writer,
} from "../support/requests.ts";
import type { AddTest } from "./add-tests.ts";
import { overDrizzle, overKysely, type Tables } from "./clients.ts";

const CLIENTS: { readonly [name: string]: (db: PGlite) => RequestClient } = {
  PGlite: (db) => {
    const writer = (on: Pick<PGlite, "query">): Writer => ({
      insert: (task) => on.query("insert into todos (task) values ($1)", [task]),
      complete: (task) => on.query("update todos set is_completed = true where task = $1", [task]),
    });
    return {
      ...writer(db),
      refused: (task) => db.query("insert into todos (task, nothing) values ($1, 1)", [task]),
      transaction: (fn) => db.transaction((tx) => fn(writer(tx))),
    };
  },
  "drizzle on PGlite": (db) =>
    overDrizzle(drizzle({ client: db }) as unknown as Parameters<typeof overDrizzle>[0]),
  "kysely on PGlite": (db) => overKysely(new Kysely<Tables>({ dialect: new PGliteDialect({ pglite: db }) })),
};

/** Capture and reads with no server at all; the tests share one database. */
export function pgliteTests(test: AddTest, create: () => Promise<PGlite>): void {
  let opened: Promise<PGlite> | undefined;
  const open = (): Promise<PGlite> => opened ??= create();

  test("in PGlite it captures, reads, and has the context of a request", async () => {
    const bare = await open();
    await bare.exec(`create table todos (
      id bigint generated always as identity primary key, task text not null, is_completed boolean default false)`);
    await install(bare);
    await track(bare, "todos");
    const db = withBemi(bare);
    const answer = bemi(async (request: Request) => {
      await db.query("insert into todos (task) values ($1)", [await request.text()]);
      await db.query("update todos set is_completed = true");
      return new Response("done");
    }, (request) => ({ endpoint: new URL(request.url).pathname }));
    await answer(new Request("http://localhost/todos", { method: "POST", body: "Sleep" }));
    const log = await changes(bare);
    deepStrictEqual(
      log.map(({ operation, context }) => `${operation} ${context.endpoint}`),
      ["CREATE /todos", "UPDATE /todos"],
    );
    const query = "select task, is_completed from todos";
    const past = await asOf(bare, { after: log[0]?.id ?? "" }, (past) => past.query(query));
    deepStrictEqual(past.rows, [{ task: "Sleep", is_completed: false }]);
  });

  for (const [name, make] of Object.entries(CLIENTS)) {
    test(`300 overlapping requests through ${name}, half of them failing, never mix`, async () => {
      const bare = await open();
      await bare.exec("delete from todos");
      const [last] = await changes(bare, { limit: 1 });
      deepStrictEqual(await overlappingRequests(make(withBemi(bare)), withContext), OUTCOME);
      const log = await changes(bare, { page: { after: last?.cursor } });
      const told = log.map(({ operation, after, context }) =>
        `${operation} ${after.task} ${context.user_id ?? "-"}`
      );
      deepStrictEqual(told.sort(), expectedChanges());
    });
  }
}
