import { createHash } from "node:crypto";
import process from "node:process";
import { DEFAULT_SCHEMA, quoteSchema } from "../../src/identifiers.ts";
import * as api from "../../src/install/mod.ts";
import type { Database, DatabaseLike } from "../../src/database/port.ts";
import * as worker from "../../src/worker/mod.ts";

/** The schema that this run installs into: TEST_SCHEMA, so that no name in the SQL may be taken for granted. */
export const SCHEMA: string = process.env.TEST_SCHEMA ?? DEFAULT_SCHEMA;

/** The same, quoted, for a test's own SQL. */
export const BEMI: string = quoteSchema(SCHEMA);

/** What the names begin with that are not in the schema: triggers, publication. */
export const OWN_NAME: string = SCHEMA === DEFAULT_SCHEMA
  ? SCHEMA
  : `bemi_${createHash("md5").update(SCHEMA).digest("hex").slice(0, 6)}`;

const schema = SCHEMA;

export const install = (db: DatabaseLike): Promise<api.InstallResult> => api.install(db, { schema });
export const uninstall = (db: DatabaseLike): Promise<void> => api.uninstall(db, { schema });
export const maintain = (db: DatabaseLike): Promise<api.MaintenanceStep[]> => api.maintain(db, { schema });
export const track = (db: DatabaseLike, table: string, options: api.TrackOptions = {}): Promise<void> =>
  api.track(db, table, { schema, ...options });
export const reconcile = (
  db: DatabaseLike,
  options: api.ReconcileOptions = {},
): Promise<api.Reconciliation[]> => api.reconcile(db, { schema, ...options });
export const untrack = (db: DatabaseLike, table: string): Promise<void> => api.untrack(db, table, { schema });
export const createSlot = (
  db: DatabaseLike,
  options: { slot?: string; failover?: boolean } = {},
): Promise<{ slot: string; created: boolean }> => worker.createSlot(db, { schema, ...options });
export const runWorker = (options: worker.WorkerOptions): worker.Worker =>
  worker.runWorker({ schema, ...options });
export const poll = (options: worker.PollOptions): Promise<worker.PollResult> =>
  worker.poll({ schema, ...options });

/** Installs, makes tables by DDL, and tracks some of them by triggers. */
export async function tracking(
  { db, port }: { db: DatabaseLike; port: Database },
  ddl: string,
  ...tables: string[]
): Promise<void> {
  await install(db);
  await port.execute(ddl);
  for (const table of tables) await track(db, table);
}
