import { connect } from "../database/connect.ts";
import type { Database, PostgresLike } from "../database/port.ts";
import { SQLSTATE, sqlstateOf } from "../database/sqlstate.ts";
import { BemiError } from "../errors.ts";
import { requireLogical } from "../install/decodable.ts";
import { inSchema, requireInstalled } from "../install/schema.ts";
import { formatLsn, type Lsn, parseLsn } from "./decode.ts";
import { slotState } from "./slot-state.ts";
import { inTransaction, type WorkerSql } from "./sql.ts";
import type { Seal } from "./table.ts";

/** The database whose WAL is read, as far as it is asked in plain SQL. */
export interface Source {
  readonly db: Database;
  readonly schema: string;
  readonly slot: string;
  readonly publication: string;
  /** Its number: one that is made anew has another. */
  readonly publicationOid: bigint;
  readonly systemIdentifier: string;
  readonly timeline: number;
  readonly database: string;
}

/**
 * Checks what decoding needs, one thing after the other, each with its remedy.
 *
 * @throws {BemiError} `schema_missing`, `wal_unavailable`, `usage`
 */
export async function openSource(sql: WorkerSql, schema: string, slot: string | undefined): Promise<Source> {
  const db: Database = {
    ...connect(sql as unknown as PostgresLike),
    transaction: (fn) => inTransaction(sql, (tx) => fn(connect(tx as unknown as PostgresLike))),
  };
  await requireInstalled(db, schema);
  const [server] = await db.query<{ is_standby: string }>("select pg_is_in_recovery()::text as is_standby");
  if (server?.is_standby === "true") {
    // As the server says to whoever writes: it may well be promoted.
    throw Object.assign(new Error("The server is a standby"), { code: SQLSTATE.readOnlyTransaction });
  }
  const [facts] = await db.query<Record<string, string>>(inSchema(
    schema,
    `select current_setting('wal_level') as wal_level, version() as version, "bemi".own_name() as publication,
      (select oid::text from pg_publication where pubname = "bemi".own_name()) as publication_oid,
      "bemi".slot_name() as slot, current_database() as database, c.system_identifier, c.timeline::text
    from "bemi".this_cluster() c`,
  ));
  if (!facts) {
    throw new BemiError("schema_missing", "Bemi's schema is damaged", { hint: "Run: bemi migrate" });
  }
  requireLogical(facts.wal_level, facts.version);
  return {
    db,
    schema,
    slot: slotName(slot ?? facts.slot),
    publication: facts.publication ?? "",
    publicationOid: BigInt(facts.publication_oid ?? 0),
    systemIdentifier: facts.system_identifier ?? "",
    timeline: Number(facts.timeline),
    database: facts.database ?? "",
  };
}

/**
 * What PostgreSQL takes for the name of a slot.
 *
 * @throws {BemiError} `usage`
 */
export function slotName(name = ""): string {
  if (/^[a-z0-9_]{1,63}$/.test(name)) return name;
  throw new BemiError("usage", "The name of the slot cannot be used", {
    hint: "Write 1 to 63 lower-case letters, digits and underscores.",
  });
}

/** How often a walsender wants to hear of its client, in milliseconds: a third of its time-out, at most 10 s. */
export async function statusInterval({ db }: Source): Promise<number> {
  const [row] = await db.query<{ timeout: string }>(
    "select setting as timeout from pg_settings where name = 'wal_sender_timeout'",
  );
  const timeout = Number(row?.timeout ?? 0);
  return timeout > 0 ? Math.min(10_000, timeout / 3) : 10_000;
}

/** Lets go of the WAL before an LSN. Where the slot is past it already, that is fine. */
export async function advance(source: Source, to: Lsn): Promise<void> {
  const move = (db: Database): Promise<unknown> =>
    db.query("select pg_replication_slot_advance($1::text, $2::text::pg_lsn)", [source.slot, formatLsn(to)]);
  try {
    await move(source.db).catch((error: unknown) => {
      if (sqlstateOf(error) !== SQLSTATE.queryCanceled) throw error;
      // By the role's statement_timeout, most likely: all WAL since the oldest open transaction is read again for it.
      return source.db.transaction(async (tx) => {
        await tx.query("select set_config('statement_timeout', '0', true)");
        await move(tx);
      });
    });
  } catch (error) {
    const state = sqlstateOf(error);
    if (state !== SQLSTATE.objectNotInPrerequisiteState && state !== SQLSTATE.invalidParameterValue) {
      throw error;
    }
    const { confirmed } = await slotState(source);
    if (confirmed < to) throw error;
  }
}

/** The secret that messages of the owner's have. */
export async function readSeal({ db, schema }: Source): Promise<Seal | undefined> {
  const [row] = await db.query<{ secret: string | null; from: string | null }>(inSchema(
    schema,
    'select secret, enforced_from::text as "from" from "bemi".read_seal()',
  ));
  return row?.secret
    ? { secret: row.secret, enforcedFrom: row.from === null ? undefined : parseLsn(row.from) }
    : undefined;
}
