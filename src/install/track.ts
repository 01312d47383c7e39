import { connect } from "../database/connect.ts";
import type { Database, DatabaseLike } from "../database/port.ts";
import { SQLSTATE, sqlstateOf } from "../database/sqlstate.ts";
import { BemiError, type BemiErrorCode } from "../errors.ts";
import { DEFAULT_SCHEMA } from "../identifiers.ts";
import { mostSimilar } from "../similar.ts";
import { requireSlot } from "./decodable.ts";
import type { SchemaOptions } from "./install.ts";
import { inSchema, requireInstalled } from "./schema.ts";

/** Options of tracking. */
export interface TrackOptions extends SchemaOptions {
  /**
   * How changes are captured: by the worker, from the Write-Ahead Log, whose replication slot has to be there, or by
   * triggers that write the log themselves.
   * @default "trigger", or what the table is captured by already
   */
  readonly capture?: "trigger" | "wal" | undefined;
  /** Columns of no interest: an UPDATE of nothing else records nothing. */
  readonly ignore?: readonly string[] | undefined;
  /** Columns that are absent from every copy: before, after, and the statement's text. */
  readonly mask?: readonly string[] | undefined;
  /** Whether a failure to record a change fails the write. By default it leaves a gap marker in the log. */
  readonly strict?: boolean | undefined;
  /**
   * Whether UPDATE and DELETE often match nothing, as in tables that are polled for work: such a statement then leaves
   * nothing in the Write-Ahead Log. Costs a check for each row that does match. Of no meaning for capture by triggers.
   */
  readonly polled?: boolean | undefined;
  /**
   * How long to wait for the table's lock, in milliseconds, at each of `attempts`.
   * @default 2000
   */
  readonly lockTimeout?: number | undefined;
  /**
   * How often to try to lock the table.
   * @default 5
   */
  readonly attempts?: number | undefined;
}

/**
 * Tracks a table, with its partitions and children; again, to change its options.
 *
 * @param table as in SQL: `todos`, `app.todos`, `"Odd Name"`
 * @throws {BemiError} `table_missing`, `not_trackable`, `privilege_missing`, `lock_timeout`, `schema_missing`,
 * `wal_unavailable`
 * @example
 * ```ts
 * import postgres from "postgres";
 * import { track } from "@bemi/core/install";
 * await track(postgres(), "people", { mask: ["password"], ignore: ["updated_at"] });
 * ```
 */
export async function track(
  db: DatabaseLike,
  table: string,
  options: TrackOptions = {},
): Promise<void> {
  const { capture, ignore, mask, strict, polled } = options;
  if (capture === "wal") {
    await requireInstalled(connect(db), options.schema ?? DEFAULT_SCHEMA);
    await requireSlot(connect(db));
  }
  const given = Object.fromEntries(
    Object.entries({ capture, ignore, mask, strict, polled }).filter(([, value]) => value !== undefined),
  );
  await onTable(db, table, options, 'select "bemi".track($1::text::regclass, $2::text::jsonb)', [
    JSON.stringify(given),
  ]);
}

/**
 * Stops tracking a table, with its partitions and children; what is in the log stays. So it remains, though all tables
 * are tracked, until {@linkcode track} names it.
 *
 * @throws {BemiError} as {@linkcode track}
 * @example
 * ```ts
 * import postgres from "postgres";
 * import { untrack } from "@bemi/core/install";
 * await untrack(postgres(), "people");
 * ```
 */
export async function untrack(
  db: DatabaseLike,
  table: string,
  options: Omit<TrackOptions, "capture" | "ignore" | "mask" | "strict" | "polled"> = {},
): Promise<void> {
  await onTable(db, table, options, 'select "bemi".untrack($1::text::regclass)', []);
}

/** One table that is going to be tracked. */
export interface PlannedTable {
  /** As in SQL, with its schema. */
  readonly table: string;
  /** How it is captured. */
  readonly capture: "trigger" | "wal";
  /** How it is captured until now, where that changes. */
  readonly former: "trigger" | "wal" | undefined;
  /** Why it cannot be captured from the Write-Ahead Log as wished, if so. */
  readonly reason: string | undefined;
}

/**
 * What tracking these tables would come to, with everything that can be known to be wrong before a table is touched.
 * Without names, every ordinary and partitioned table that was not untracked: one that cannot be captured from the
 * Write-Ahead Log without breaking the application's writes is to be captured by triggers.
 *
 * @throws {BemiError} `table_missing`, `not_trackable`, `privilege_missing`, `schema_missing`
 * @example
 * ```ts
 * import postgres from "postgres";
 * import { planTracking } from "@bemi/core/install";
 * for (const { table, capture, reason } of await planTracking(postgres(), undefined, { capture: "wal" })) {
 *   console.log(table, capture, reason);
 * }
 * ```
 */
export async function planTracking(
  db: DatabaseLike,
  tables: readonly string[] | undefined,
  options: Pick<TrackOptions, "capture" | "schema"> = {},
): Promise<PlannedTable[]> {
  const { schema = DEFAULT_SCHEMA, capture } = options;
  const database = connect(db);
  await requireInstalled(database, schema);
  const names = tables && await Promise.all(tables.map((table) => resolve(database, table)));
  const found = await database.query<Candidate>(
    inSchema(schema, CANDIDATES),
    [names === undefined ? null : JSON.stringify(names)],
  );
  const refused = found.find(({ refusal }) => refusal !== null);
  if (refused) {
    throw new BemiError("not_trackable", `Cannot track ${refused.name}, as ${refused.refusal}`, {
      hint: "What can be tracked are tables, partitioned and foreign ones too.",
    });
  }
  const foreign = found.filter(({ owned }) => !owned).map(({ name }) => name);
  if (foreign.length > 0) {
    throw new BemiError(
      "privilege_missing",
      `Cannot track ${foreign.join(", ")}: this role does not own it`,
      {
        hint: "Run this as the owner, or name the tables to track.",
      },
    );
  }
  const impossible = names && capture === "wal" && found.find(({ reason }) => reason !== null);
  if (impossible) throw notFromWal(impossible);
  return found.map(({ name, reason, current, usual }) => {
    const wanted = capture ?? current ?? usual;
    const possible = wanted === "wal" && reason !== null ? "trigger" : wanted;
    return {
      table: name,
      capture: possible,
      former: current === null || current === possible ? undefined : current,
      reason: possible === wanted ? undefined : reason ?? undefined,
    };
  });
}

interface Candidate {
  readonly name: string;
  readonly refusal: string | null;
  readonly reason: string | null;
  readonly owned: boolean;
  readonly current: "trigger" | "wal" | null;
  /** What tables that come to be tracked by themselves are captured by. */
  readonly usual: "trigger" | "wal";
}

const CANDIDATES =
  `select pg_catalog.format('%I.%I', n.nspname, c.relname) as name, "bemi".refusal(c.oid) as refusal,
    "bemi".wal_refusal(c.oid) as reason, pg_has_role(session_user, c.relowner, 'usage') as owned,
    t.capture as current, (select capture from "bemi".settings) as usual
  from pg_class c join pg_namespace n on n.oid = c.relnamespace left join "bemi".tracked_tables t on t.relation = c.oid
  where case when $1::text is null then c.oid in (select "bemi".all_tables())
    else $1::text::jsonb ? pg_catalog.format('%I.%I', n.nspname, c.relname) end
  order by 1`;

function notFromWal({ name, reason }: Candidate): BemiError {
  return new BemiError("not_trackable", `Cannot capture ${name} from the Write-Ahead Log, as ${reason}`, {
    hint: 'Track it with capture "trigger".',
  });
}

/**
 * Tracks every table there is, but for those that were untracked, one transaction each, and from now on each new one.
 *
 * @returns the tables that were tracked, each as it is captured now
 * @throws {BemiError} as {@linkcode track}
 * @example
 * ```ts
 * import postgres from "postgres";
 * import { install, trackAll } from "@bemi/core/install";
 * const sql = postgres();
 * await install(sql);
 * await trackAll(sql);
 * ```
 */
export async function trackAll(db: DatabaseLike, options: TrackOptions = {}): Promise<PlannedTable[]> {
  const schema = options.schema ?? DEFAULT_SCHEMA;
  const plan = await planTracking(db, undefined, options);
  if (options.capture === "wal") await requireSlot(connect(db));
  for (const { table, capture } of plan) await track(db, table, { ...options, capture });
  await connect(db).query(
    inSchema(schema, 'update "bemi".settings set track_all = true, capture = coalesce($1::text, capture)'),
    [options.capture ?? null],
  );
  return plan;
}

async function onTable(
  db: DatabaseLike,
  table: string,
  options: TrackOptions,
  sql: string,
  parameters: string[],
): Promise<void> {
  const schema = options.schema ?? DEFAULT_SCHEMA;
  const { lockTimeout = 2000, attempts = 5 } = options;
  const database = connect(db);
  await requireInstalled(database, schema);
  const name = await resolve(database, table);
  for (let attempt = 1;; attempt++) {
    try {
      await database.transaction(async (tx) => {
        await tx.query("select set_config('lock_timeout', $1, true)", [`${lockTimeout}ms`]);
        await tx.query(inSchema(schema, sql), [name, ...parameters]);
      });
      return;
    } catch (error) {
      const state = sqlstateOf(error);
      const locked = state === SQLSTATE.lockNotAvailable || state === SQLSTATE.deadlockDetected;
      if (!locked) throw explained(error);
      if (attempt >= attempts) {
        throw new BemiError("lock_timeout", `${name} stayed locked by other sessions`, {
          hint: "Try again when no long transaction uses the table: see pg_stat_activity.",
          cause: error,
        });
      }
      await new Promise((done) => setTimeout(done, 100 * 2 ** attempt * (0.5 + Math.random())));
    }
  }
}

/** The table that a name means, quoted and with its schema. */
export async function resolve(db: Database, table: string): Promise<string> {
  let name: string | null | undefined;
  try {
    const [row] = await db.query<{ name: string | null }>(
      `select pg_catalog.format('%I.%I', n.nspname, c.relname) as name
      from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = to_regclass($1::text)`,
      [table],
      { isKept: true },
    );
    name = row?.name;
  } catch (error) {
    // A name that is no identifier at all, such as `a.b.c.d` or an unclosed quote.
    throw missing(table, undefined, error);
  }
  if (!name) throw missing(table, await nearest(db, table));
  return name;
}

/** A table whose name looks like one that is not there, written as in SQL. */
async function nearest(db: Database, table: string): Promise<string | undefined> {
  const rows = await db.query<{ name: string; written: string }>(
    `select case when pg_table_is_visible(c.oid) then c.relname else n.nspname || '.' || c.relname end as name,
      c.oid::regclass::text as written
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'f') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema' limit 10000`,
  );
  const name = mostSimilar(table, rows.map((row) => row.name));
  // In another schema than those of the search path the bare name is enough of a likeness.
  return rows.find((row) => row.name === name)?.written ??
    rows.find((row) => row.name.endsWith(`.${table.toLowerCase()}`))?.written;
}

function missing(table: string, meant: string | undefined, cause?: unknown): BemiError {
  return new BemiError("table_missing", `There is no table ${table}`, {
    hint:
      `${
        meant === undefined ? "" : `Did you mean ${meant}? `
      }Write it as in SQL, with its schema if that is not ` +
      "in the search path, and in double quotes where needed.",
    cause,
  });
}

const EXPLAINED: Readonly<Record<string, BemiErrorCode>> = {
  [SQLSTATE.featureNotSupported]: "not_trackable",
  [SQLSTATE.insufficientPrivilege]: "privilege_missing",
  [SQLSTATE.invalidParameterValue]: "not_trackable",
  [SQLSTATE.objectNotInPrerequisiteState]: "not_trackable",
  [SQLSTATE.undefinedColumn]: "not_trackable",
  [SQLSTATE.wrongObjectType]: "not_trackable",
};

// The messages are the SQL functions' own, and name tables and columns, never values.
export function explained(error: unknown): unknown {
  const code = EXPLAINED[sqlstateOf(error) ?? ""];
  if (!code) return error;
  const { message, hint } = error as { message: string; hint?: string };
  return new BemiError(code, message, { hint, cause: error });
}
