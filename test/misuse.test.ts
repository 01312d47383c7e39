import { PGlite } from "@electric-sql/pglite";
import { neon } from "@neondatabase/serverless";
import { drizzle } from "drizzle-orm/pglite";
import pg from "pg";
import { expect, test } from "vitest";
import type { DatabaseLike } from "../src/database/port.ts";
import {
  asOf,
  changes,
  groups,
  history,
  planRevert,
  revert,
  revertScript,
  scoped,
} from "../src/history/mod.ts";
import {
  baseline,
  doctor,
  importChanges,
  install,
  maintain,
  planTracking,
  reconcile,
  seal,
  status,
  track,
  trackAll,
  uninstall,
  untrack,
} from "../src/install/mod.ts";
import { changesWithin, mark } from "../src/testing/mod.ts";
import { createSlot } from "../src/worker/mod.ts";
import { onPglite } from "./support/databases.ts";

const CALLS: Readonly<Record<string, (db: DatabaseLike, schema?: string) => Promise<unknown>>> = {
  track: (db, schema) => track(db, "todos", { schema }),
  untrack: (db, schema) => untrack(db, "todos", { schema }),
  trackAll: (db, schema) => trackAll(db, { schema }),
  planTracking: (db, schema) => planTracking(db, undefined, { schema }),
  baseline: (db, schema) => baseline(db, "todos", { schema }),
  reconcile: (db, schema) => reconcile(db, { schema }),
  seal: (db, schema) => seal(db, { schema }),
  importChanges: (db, schema) => importChanges(db, "public.changes", { schema }),
  createSlot: (db, schema) => createSlot(db, { schema }),
  maintain: (db, schema) => maintain(db, { schema }),
  status: (db, schema) => status(db, { schema }),
  doctor: (db, schema) => doctor(db, { schema }),
  uninstall: (db, schema) => uninstall(db, { schema }),
  changes: (db, schema) => changes(db, { schema }),
  history: (db, schema) => history(db, "todos", "1", { schema }),
  asOf: (db, schema) => asOf(db, "todos", "2026-01-01", { schema }),
  planRevert: (db, schema) => planRevert(db, { context: { user_id: 1 } }, { schema }),
  revert: (db, schema) => revert(db, { context: { user_id: 1 } }, { schema }),
  revertScript: (db, schema) => revertScript(db, { context: { user_id: 1 } }, { schema }),
  groups: (db, schema) => groups(db, { by: "table", schema }),
  scoped: (db, schema) => scoped(db, { table: "todos", row: { id: 1 }, columns: ["id"], schema }).changes(),
  changesWithin: (db, schema) => changesWithin(db, () => {}, { schema }),
  mark: (db, schema) => mark(db, { schema }),
};

onPglite("before it is installed", (open) => {
  test("every function says how to install it", async () => {
    await using database = await open();
    for (const [name, call] of Object.entries(CALLS)) {
      await expect(call(database.db), name).rejects.toMatchObject({
        code: "schema_missing",
        hint: "Run: bemi init (or call install() of @bemi/core/install)",
      });
      await expect(call(database.db, "au dit"), name).rejects.toMatchObject({
        hint: expect.stringContaining("bemi init --schema 'au dit'"),
      });
    }
  });
});

test("what is no database, or not yet one, is refused with the remedy, instead of being waited for", async () => {
  const refused = async (db: unknown): Promise<unknown> =>
    await install(db as DatabaseLike).catch((error) => error);
  for (
    const [db, code, hint] of [
      [undefined, "unsupported_client", /^Pass a postgres\.js Sql/],
      ["postgres://localhost/app", "unsupported_client", /^Pass a postgres\.js Sql/],
      [PGlite.prototype.clone, "unsupported_client", /^Pass a postgres\.js Sql/],
      [Promise.resolve(new pg.Pool()), "unsupported_client", /await it/],
      [drizzle({ client: Object.create(PGlite.prototype) as PGlite }), "unsupported_client", /db\.\$client/],
      [new pg.Client(), "connection_failed", /await client\.connect\(\)/],
      [
        neon("postgres://user:secret@host.neon.tech/app"),
        "unsupported_client",
        /Pool or Client of Neon's/,
      ],
    ] as const
  ) {
    const error = await refused(db) as { code: string; hint: string };
    expect(error.code).toBe(code);
    expect(error.hint).toMatch(hint);
  }
});
