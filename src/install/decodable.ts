import type { Database } from "../database/port.ts";
import { BemiError } from "../errors.ts";

/**
 * What a table needs that is to be captured from the Write-Ahead Log: without a slot nobody keeps what is written to it.
 *
 * @throws {BemiError} `wal_unavailable`
 */
export async function requireSlot(db: Database): Promise<void> {
  const [facts] = await db.query<{ wal_level: string; version: string; has_slot: boolean }>(
    `select current_setting('wal_level') as wal_level, version() as version, exists (select from pg_replication_slots
      where database = current_database() and plugin = 'pgoutput') as has_slot`,
  );
  requireLogical(facts?.wal_level, facts?.version);
  if (facts?.has_slot) return;
  throw new BemiError(
    "wal_unavailable",
    "There is no replication slot: changes captured from the Write-Ahead Log would be lost",
    { hint: "Run: bemi init --capture wal. Or, in TypeScript: createSlot() of @bemi/core/worker." },
  );
}

/** @throws {BemiError} `wal_unavailable` */
export function requireLogical(level: string | undefined, version: string | undefined): void {
  if (/emscripten|wasm/i.test(version ?? "")) {
    throw new BemiError("wal_unavailable", "PGlite cannot decode its Write-Ahead Log", {
      hint: 'Track tables there with capture "trigger".',
    });
  }
  if (level === "logical") return;
  throw new BemiError(
    "wal_unavailable",
    `wal_level is "${level}"; decoding the Write-Ahead Log needs "logical"`,
    {
      hint: "As a superuser: alter system set wal_level = 'logical', then restart PostgreSQL. " +
        'Or track with capture "trigger".',
    },
  );
}
