import { connect } from "../database/connect.ts";
import type { DatabaseLike } from "../database/port.ts";
import { DEFAULT_SCHEMA } from "../identifiers.ts";
import type { SchemaOptions } from "./install.ts";
import { inSchema, requireInstalled } from "./schema.ts";

export interface TrackedTable {
  readonly schema: string;
  readonly table: string;
  readonly capture: "trigger" | "wal";
  readonly ignore: readonly string[];
  readonly mask: readonly string[];
  readonly strict: boolean;
  /** Whether changes are captured row by row, as tables with row triggers of their own need it. */
  readonly rowLevel: boolean;
}

export interface Status {
  readonly version: number;
  readonly trackAll: boolean;
  /** Whether new partitions, and new tables when all are tracked, are noticed by themselves. */
  readonly followsDdl: boolean;
  readonly tables: readonly TrackedTable[];
}

/**
 * What is installed, and which tables are tracked; partitions are named by their root alone.
 *
 * @throws {BemiError} `schema_missing`
 */
export async function status(db: DatabaseLike, options: SchemaOptions = {}): Promise<Status> {
  const schema = options.schema ?? DEFAULT_SCHEMA;
  const database = connect(db);
  const version = await requireInstalled(database, schema);
  const [settings] = await database.query<{ track_all: boolean; event_trigger: boolean }>(
    inSchema(schema, 'select track_all, event_trigger from "bemi".settings'),
  );
  const tables = await database.query<{ json: string }>(inSchema(
    schema,
    `select json_build_object('schema', n.nspname, 'table', c.relname, 'capture', t.capture, 'ignore', t.ignored,
      'mask', t.masked, 'strict', t.is_strict, 'rowLevel', t.row_level)::text as json
    from "bemi".tracked_tables t join pg_class c on c.oid = t.relation join pg_namespace n on n.oid = c.relnamespace
    where t.relation = t.root order by n.nspname, c.relname`,
  ));
  return {
    version,
    trackAll: settings?.track_all ?? false,
    followsDdl: settings?.event_trigger ?? false,
    tables: tables.map((row) => JSON.parse(row.json) as TrackedTable),
  };
}
