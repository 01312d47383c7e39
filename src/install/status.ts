import { connect } from "../database/connect.ts";
import type { Database, DatabaseLike } from "../database/port.ts";
import { BemiError } from "../errors.ts";
import { DEFAULT_SCHEMA, quoteSchema } from "../identifiers.ts";
import type { SchemaOptions } from "./install.ts";
import { type LogStatus, logStatus } from "./log-status.ts";
import { inSchema, schemaMissing } from "./schema.ts";
import { type SlotStatus, slotStatus, type WorkerConnections, workerConnections } from "./slot-status.ts";

/** A table that is tracked. */
export interface TrackedTable {
  /** Its schema. */
  readonly schema: string;
  /** Its name. */
  readonly table: string;
  /** How it is captured. */
  readonly capture: "trigger" | "wal";
  /** Columns of which alone an UPDATE is not recorded. */
  readonly ignore: readonly string[];
  /** Columns that no copy holds. */
  readonly mask: readonly string[];
  /** Whether a change that cannot be recorded fails the write. */
  readonly strict: boolean;
  /** Whether changes are captured row by row, as tables with row triggers of their own need it. */
  readonly rowLevel: boolean;
}

/** What there is to see; what the role may not see is absent, and named in `unseen`. */
export interface Status {
  /** The version that is installed. */
  readonly version: number | undefined;
  /** Whether new tables are tracked by themselves. */
  readonly trackAll: boolean | undefined;
  /** Whether new partitions, and new tables when all are tracked, are noticed by themselves. */
  readonly followsDdl: boolean | undefined;
  /** Partitions are named by their root alone. */
  readonly tables: readonly TrackedTable[];
  /** What `untrack` took out, as in SQL: it stays untracked, though all tables are tracked, until it is named to `track`. */
  readonly untracked: readonly string[];
  /** Absent where nothing is captured from the Write-Ahead Log. */
  readonly slot: SlotStatus | undefined;
  /** The workers that are connected. */
  readonly workers: readonly WorkerConnections[];
  /** Of the database that holds the log. */
  readonly log: LogStatus;
  /** Whether changes are lost: by a slot that is gone or invalidated, or in a gap that was not reconciled. */
  readonly isLossy: boolean;
  /** What this role lacks the right to see. */
  readonly unseen: readonly string[];
}

/** Options of {@linkcode status}. */
export interface StatusOptions extends SchemaOptions {
  /**
   * The database that holds the log.
   * @default the same
   */
  readonly log?: DatabaseLike | undefined;
  /** An earlier look, against which the rate of WAL is taken. */
  readonly since?: Status | undefined;
}

/** Relations of Bemi's that a role may read. */
export type Readable = ReadonlySet<string>;

/**
 * How tracking stands: what is installed and tracked, how far the worker is, what is lost. As much of it as the role
 * may see.
 *
 * @throws {BemiError} `schema_missing`, `privilege_missing` where nothing can be seen at all
 * @example
 * ```ts
 * import postgres from "postgres";
 * import { status } from "@bemi/core/install";
 * const { tables, slot, isLossy } = await status(postgres());
 * console.log(tables.length, slot?.confirmedLag, isLossy);
 * ```
 */
export async function status(db: DatabaseLike, options: StatusOptions = {}): Promise<Status> {
  const schema = options.schema ?? DEFAULT_SCHEMA;
  const database = connect(db);
  const readable = await readableRelations(database, schema);
  const logDatabase = options.log === undefined ? database : connect(options.log);
  const logReadable = options.log === undefined ? readable : await readableRelations(logDatabase, schema);
  const unseen: string[] = [];
  const see = async <R>(
    what: string,
    [relations, from]: readonly [readonly string[], Readable],
    look: () => Promise<R>,
  ): Promise<R | undefined> => {
    if (relations.every((name) => from.has(name))) return await look();
    unseen.push(what);
    return undefined;
  };

  const version = await see("version", [["migrations"], readable], async () => {
    const [row] = await database.query<{ version: number }>(
      inSchema(schema, 'select max(version)::integer as version from "bemi".migrations'),
    );
    return Number(row?.version);
  });
  const settings = await see("settings", [["settings"], readable], async () => {
    const [row] = await database.query<{ track_all: boolean; event_trigger: boolean }>(
      inSchema(schema, 'select track_all, event_trigger from "bemi".settings'),
    );
    return row;
  });
  const tables = await see("tables", [["tracked_tables"], readable], () => trackedTables(database, schema));
  const untracked = await see(
    "untracked tables",
    [["untracked"], readable],
    () => untrackedTables(database, schema),
  );
  const log = await logStatus(logDatabase, { schema, readable: logReadable, see });
  const slot = await slotStatus(database, {
    schema,
    name: log.checkpoint?.slot,
    isExpected: tables?.some(({ capture }) => capture === "wal") ?? false,
    since: options.since?.slot,
  });
  return {
    version,
    trackAll: settings?.track_all,
    followsDdl: settings?.event_trigger,
    tables: tables ?? [],
    untracked: untracked ?? [],
    slot,
    workers: await workerConnections(database),
    log,
    isLossy: slot?.walStatus === "lost" || slot?.walStatus === "missing" || (log.gaps?.length ?? 0) > 0,
    unseen,
  };
}

async function trackedTables(database: Database, schema: string): Promise<TrackedTable[]> {
  const rows = await database.query<{ json: string }>(inSchema(
    schema,
    `select pg_catalog.json_build_object('schema', n.nspname, 'table', c.relname, 'capture', t.capture, 'ignore', t.ignored,
      'mask', t.masked, 'strict', t.is_strict, 'rowLevel', t.row_level and t.capture = 'trigger')::text as json
    from "bemi".tracked_tables t join pg_class c on c.oid = t.relation join pg_namespace n on n.oid = c.relnamespace
    where t.relation = t.root order by n.nspname, c.relname`,
  ));
  return rows.map((row) => JSON.parse(row.json) as TrackedTable);
}

/** Partitions and children go with what they were untracked with. */
async function untrackedTables(database: Database, schema: string): Promise<string[]> {
  const rows = await database.query<{ name: string }>(inSchema(
    schema,
    `select pg_catalog.format('%I.%I', n.nspname, c.relname) as name
    from "bemi".untracked u join pg_class c on c.oid = u.relation join pg_namespace n on n.oid = c.relnamespace
    where u.relation = u.root or not exists (select from pg_inherits i where i.inhrelid = u.relation) order by 1`,
  ));
  return rows.map(({ name }) => name);
}

async function readableRelations(database: Database, schema: string): Promise<Readable> {
  const rows = await database.query<{ name: string; usable: boolean; readable: boolean }>(
    `select c.relname as name, has_schema_privilege(n.oid, 'usage') as usable, has_table_privilege(c.oid, 'select') as readable
    from pg_namespace n join pg_class c on c.relnamespace = n.oid
    where n.oid = to_regnamespace($1::text) and c.relkind in ('r', 'p', 'v')`,
    [quoteSchema(schema)],
  );
  if (!rows.some(({ name }) => name === "migrations")) {
    throw schemaMissing(schema);
  }
  if (!rows.every(({ usable }) => usable)) {
    throw new BemiError("privilege_missing", `This role may not look into the schema "${schema}"`, {
      hint: "Connect as the owner, or as bemi_reader: bemi generate roles makes it.",
    });
  }
  return new Set(rows.filter(({ readable }) => readable).map(({ name }) => name));
}
