import {
  planRevert,
  revert as revertUnit,
  type RevertOptions,
  type RevertPlan,
  type RevertResult,
  type RevertUnit,
} from "../../src/history/mod.ts";
import { baseline, type TrackOptions } from "../../src/install/mod.ts";
import { createSlot, install, runWorker, SCHEMA, track } from "./installation.ts";
import { onEachDatabase, onEachServer, type TestDatabase } from "./databases.ts";

/** A database whose changes are captured in one way or the other, and reverted. */
export interface Reverting extends AsyncDisposable {
  readonly database: TestDatabase;
  readonly capture: "trigger" | "wal";
  execute(sql: string): Promise<void>;
  /** Makes tables, and tracks some. */
  track(sql: string, tables: readonly string[], options?: TrackOptions): Promise<void>;
  /** Runs statements as one transaction, in a context. */
  as(context: object, sql: string): Promise<void>;
  /** The rows of a table as JSON, in order. */
  rows(table: string): Promise<string[]>;
  plan(unit: RevertUnit, options?: RevertOptions): Promise<RevertPlan>;
  revert(unit: RevertUnit, options?: RevertOptions): Promise<RevertResult>;
}

/** Runs a group of tests in trigger capture on every database, and in WAL capture on every server. */
export function onEachCapture(name: string, tests: (open: () => Promise<Reverting>) => void): void {
  onEachDatabase(`${name}, by triggers`, (open) => tests(async () => reverting(await open(), "trigger")));
  onEachServer(`${name}, from the WAL`, (open) => tests(async () => reverting(await open(), "wal")));
}

/** Installs, and for the WAL starts a worker. */
export async function reverting(database: TestDatabase, capture: "trigger" | "wal"): Promise<Reverting> {
  const { db, port } = database;
  await install(db);
  if (capture === "wal") await createSlot(db);
  const worker = capture === "wal" ? runWorker({ source: database.url ?? "" }) : undefined;
  return {
    database,
    capture,
    execute: (sql) => port.execute(sql),
    track: async (sql, tables, options = {}) => {
      await port.execute(sql);
      for (const table of tables) {
        await track(db, table, { capture, ...options });
        await baseline(db, table, { schema: SCHEMA });
      }
    },
    as: (context, sql) =>
      port.transaction(async (tx) => {
        await tx.query("select set_config('bemi.context', $1, true)", [JSON.stringify(context)]);
        await tx.execute(sql);
      }),
    rows: async (table) =>
      (await port.query<{ row: string }>(`select to_jsonb(t.*)::text as row from ${table} t order by 1`)).map(
        ({ row }) => row,
      ),
    plan: (unit, options = {}) => planRevert(db, unit, { schema: SCHEMA, ...options }),
    revert: (unit, options = {}) => revertUnit(db, unit, { schema: SCHEMA, ...options }),
    [Symbol.asyncDispose]: async () => {
      await worker?.[Symbol.asyncDispose]();
      await database[Symbol.asyncDispose]();
    },
  };
}
