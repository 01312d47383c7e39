import { connect } from "../database/connect.ts";
import type { DatabaseLike } from "../database/port.ts";
import { DEFAULT_SCHEMA } from "../identifiers.ts";
import { inSchema, requireInstalled } from "../install/schema.ts";

/** What a change did to its row. `SNAPSHOT` is a row that was there when tracking began. */
export type Operation = "CREATE" | "UPDATE" | "DELETE" | "TRUNCATE" | "SNAPSHOT";

/** Every {@linkcode Operation}. */
export const OPERATIONS: readonly Operation[] = ["CREATE", "UPDATE", "DELETE", "TRUNCATE", "SNAPSHOT"];

/** Which changes to read; what is left out does not restrict. */
export interface ChangesFilter {
  /** `todos`, or with its schema `app.todos`: names as the log has them, without quotes. */
  readonly table?: string | undefined;
  /** The primary key's text; a JSON array of several columns. */
  readonly key?: string | undefined;
  /** Contained in the change's context, as `@>` has it. */
  readonly context?: Readonly<Record<string, unknown>> | string | undefined;
  readonly operation?: Operation | undefined;
  /** Earliest time of commit, as PostgreSQL reads a timestamp. */
  readonly since?: Date | string | undefined;
  /** Time of commit before which to stop. */
  readonly until?: Date | string | undefined;
  /** The latest so many. */
  readonly limit?: number | undefined;
  /** @default "bemi" */
  readonly schema?: string | undefined;
}

/** One change, as the log has it. Times are ISO 8601 with microseconds; ids and positions are decimal text. */
export interface Change {
  readonly id: string;
  readonly database: string;
  readonly schema: string;
  readonly table: string;
  readonly primary_key: string | null;
  readonly former_primary_key: string | null;
  readonly operation: Operation;
  readonly before: Readonly<Record<string, unknown>>;
  readonly after: Readonly<Record<string, unknown>>;
  readonly context: Readonly<Record<string, unknown>>;
  readonly committed_at: string;
  readonly transaction_id: string;
  readonly position: string;
}

/**
 * Reads the log, oldest first.
 *
 * @throws {BemiError} `schema_missing`
 */
export async function changes(db: DatabaseLike, filter: ChangesFilter = {}): Promise<Change[]> {
  return (await changesJson(db, filter)).map((json) => JSON.parse(json) as Change);
}

/** As {@linkcode changes}, but each change is the JSON text that the server made: its numbers are exact. */
export async function changesJson(db: DatabaseLike, filter: ChangesFilter = {}): Promise<string[]> {
  const schema = filter.schema ?? DEFAULT_SCHEMA;
  const database = connect(db);
  await requireInstalled(database, schema);
  const { where, parameters } = conditions(filter);
  const limit = filter.limit === undefined
    ? ""
    : `limit $${parameters.push(String(filter.limit))}::text::bigint`;
  const rows = await database.query<{ json: string }>(
    inSchema(
      schema,
      `select json from (
      select pg_catalog.json_build_object('id', id, 'database', database, 'schema', schema, 'table', "table",
          'primary_key', primary_key, 'former_primary_key', former_primary_key, 'operation', operation,
          'before', before, 'after', after, 'context', context,
          'committed_at', to_char(committed_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
          'transaction_id', transaction_id::text, 'position', position::text)::text as json,
        source_id, commit_lsn, transaction_index
      from "bemi".changes ${where}
      order by source_id desc, commit_lsn desc, transaction_index desc ${limit}
    ) as latest order by source_id, commit_lsn, transaction_index`,
    ),
    parameters,
  );
  return rows.map((row) => row.json);
}

function conditions(filter: ChangesFilter): { where: string; parameters: string[] } {
  const parameters: string[] = [];
  const parts: string[] = [];
  const bind = (value: string, type: string): string => `$${parameters.push(value)}::text::${type}`;
  if (filter.table !== undefined) {
    const [table, schema] = filter.table.split(".").reverse();
    parts.push(`"table" = ${bind(table ?? "", "text")}`);
    if (schema !== undefined) parts.push(`schema = ${bind(schema, "text")}`);
  }
  if (filter.key !== undefined) {
    const key = bind(filter.key, "text");
    parts.push(
      `(pg_catalog.hashtextextended(primary_key, 0) = pg_catalog.hashtextextended(${key}, 0) and primary_key = ${key} or former_primary_key = ${key})`,
    );
  }
  if (filter.operation !== undefined) parts.push(`operation = ${bind(filter.operation, "text")}`);
  if (filter.context !== undefined) {
    const json = typeof filter.context === "string" ? filter.context : JSON.stringify(filter.context);
    parts.push(`context @> ${bind(json, "jsonb")}`);
  }
  const time = (value: Date | string): string =>
    bind(value instanceof Date ? value.toISOString() : value, "timestamptz");
  if (filter.since !== undefined) parts.push(`committed_at >= ${time(filter.since)}`);
  if (filter.until !== undefined) parts.push(`committed_at < ${time(filter.until)}`);
  return { where: parts.length > 0 ? `where ${parts.join(" and ")}` : "", parameters };
}
