import { connect } from "../database/connect.ts";
import type { Database, DatabaseLike } from "../database/port.ts";
import { SQLSTATE, sqlstateOf } from "../database/sqlstate.ts";
import { BemiError } from "../errors.ts";
import { DEFAULT_SCHEMA } from "../identifiers.ts";
import type { SchemaOptions } from "./install.ts";
import { inSchema, requireInstalled } from "./schema.ts";
import { explained, resolve } from "./track.ts";

/** Options of {@linkcode reconcile}. */
export interface ReconcileOptions extends SchemaOptions {
  /**
   * The database that holds the log.
   * @default the tables' own
   */
  readonly log?: DatabaseLike | undefined;
  /**
   * Tables, written as in SQL.
   * @default all that are tracked from the Write-Ahead Log, and gaps count as closed then
   */
  readonly tables?: readonly string[] | undefined;
  /**
   * Rows that are compared, and locked against writers, in one transaction.
   * @default 500
   */
  readonly chunk?: number | undefined;
  /** Ends it after the chunk that is under way. */
  readonly signal?: AbortSignal | undefined;
}

/** What came of one table. */
export interface Reconciliation {
  /** The table, with its schema. */
  readonly table: string;
  /** Whether it could be compared: without a primary key the log cannot be put beside the rows. */
  readonly isCompared: boolean;
  /** Rows that the log has, and the table has not. */
  readonly absent: number;
}

/**
 * After a gap: has the worker compare every row with the log's last image of it, and record what differs as a change
 * with `{"db": {"reconciled": true}}` in its context. Goes through the Write-Ahead Log, so that each row is compared at
 * its place in the history of its key while the application goes on writing; it is done when the worker has read it.
 *
 * @throws {BemiError} `table_missing`, `not_trackable`, `privilege_missing`, `lock_timeout`, `schema_missing`
 * @example
 * ```ts
 * import postgres from "postgres";
 * import { reconcile } from "@bemi/core/install";
 * for (const { table, isCompared } of await reconcile(postgres())) {
 *   if (!isCompared) console.log(`${table} has no primary key`);
 * }
 * ```
 */
export async function reconcile(
  db: DatabaseLike,
  options: ReconcileOptions = {},
): Promise<Reconciliation[]> {
  const { schema = DEFAULT_SCHEMA, chunk = 500, signal } = options;
  const source = connect(db);
  const log = options.log ? connect(options.log) : source;
  await requireInstalled(source, schema);
  await requireInstalled(log, schema);
  const [start] = await log.query<{ time: string }>("select clock_timestamp()::text as time");
  const results: Reconciliation[] = [];
  for (const table of await tablesOf(source, schema, options.tables)) {
    if (signal?.aborted) return results;
    const absent = table.has_key ? await compare({ source, log, schema, table, chunk, signal }) : 0;
    results.push({ table: table.relation, isCompared: table.has_key, absent });
  }
  if (!options.tables && !signal?.aborted) {
    await log.query(inSchema(schema, 'select "bemi".close_gaps($1::text::timestamptz)'), [
      start?.time ?? null,
    ]);
  }
  return results;
}

interface Table {
  readonly relation: string;
  readonly schema: string;
  readonly name: string;
  /** What the log has to be told of it: see `past_of()`. */
  readonly past: string | null;
  readonly has_key: boolean;
}

async function tablesOf(
  db: Database,
  schema: string,
  names: readonly string[] | undefined,
): Promise<Table[]> {
  const all = await db.query<Table>(inSchema(
    schema,
    `select format('%I.%I', n.nspname, c.relname) as relation, n.nspname::text as schema, c.relname::text as name,
      "bemi".past_of(t.relation)::text as past, cardinality("bemi".key_columns(t.relation)) > 0 as has_key
    from "bemi".tracked_tables t join pg_class c on c.oid = t.relation join pg_namespace n on n.oid = c.relnamespace
    where t.relation = t.root and t.capture = 'wal' order by n.nspname, c.relname`,
  ));
  if (!names) return all;
  const wanted = await Promise.all(names.map((name) => resolve(db, name)));
  return wanted.map((name) => {
    const found = all.find(({ relation }) => relation === name);
    if (found) return found;
    throw new BemiError("not_trackable", `Table ${name} is not tracked from the Write-Ahead Log`, {
      hint: "A partition goes with its root. What triggers capture has no gaps.",
    });
  });
}

interface Comparison {
  readonly source: Database;
  readonly log: Database;
  readonly schema: string;
  readonly table: Table;
  readonly chunk: number;
  readonly signal: AbortSignal | undefined;
}

/** First the rows there are, then the keys of the log that none has; returns how many those are. */
async function compare({ source, log, schema, table, chunk, signal }: Comparison): Promise<number> {
  let last: string | null = null;
  while (!signal?.aborted) {
    const [row]: { last: string | null }[] = await source.query<{ last: string | null }>(
      inSchema(
        schema,
        'select "bemi".reconcile_rows($1::text::regclass, $2::text::text[], $3::text::integer)::text as last',
      ),
      [table.relation, last, String(chunk)],
    ).catch((error: unknown) => {
      throw explained(error);
    });
    last = row?.last ?? null;
    if (last === null) break;
  }
  let absent = 0;
  let after = { hash: "-9223372036854775808", key: "" };
  while (!signal?.aborted) {
    const keys: { hash: string; key: string; is_there: boolean }[] = await log.query(
      inSchema(
        schema,
        `select hash::text, key, is_there
        from "bemi".logged_keys($1::text, $2::text, $3::text::jsonb, $4::text::bigint, $5::text, $6::text::integer)`,
      ),
      [table.schema, table.name, table.past, after.hash, after.key, String(chunk)],
    );
    const end = keys.at(-1);
    if (!end) break;
    after = end;
    const there = keys.filter(({ is_there }) => is_there).map(({ key }) => key);
    if (there.length > 0) absent += await sayAbsent(source, schema, table, there);
  }
  return absent;
}

/** Attempts to lock a table against writers for a moment. */
const ATTEMPTS = 20;

async function sayAbsent(
  source: Database,
  schema: string,
  { relation }: Table,
  keys: string[],
): Promise<number> {
  for (let attempt = 1;; attempt++) {
    try {
      const [row] = await source.query<{ absent: string }>(
        inSchema(
          schema,
          `select "bemi".reconcile_absent($1::text::regclass,
            array(select jsonb_array_elements_text($2::text::jsonb)))::text as absent`,
        ),
        [relation, JSON.stringify(keys)],
      );
      return Number(row?.absent ?? 0);
    } catch (error) {
      const state = sqlstateOf(error);
      const isLocked = state === SQLSTATE.lockNotAvailable || state === SQLSTATE.deadlockDetected;
      if (!isLocked || attempt === ATTEMPTS) throw explained(error);
      await new Promise((done) => setTimeout(done, 100 * attempt));
    }
  }
}
