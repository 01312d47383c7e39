import type { Database } from "../database/port.ts";
import { BemiError } from "../errors.ts";
import { DEFAULT_SCHEMA, quoteSchema } from "../identifiers.ts";

/** Writes SQL for a schema: the token `"bemi"` becomes the schema's quoted name. */
export function inSchema(schema: string, sql: string): string {
  return sql.replaceAll(`"${DEFAULT_SCHEMA}"`, () => quoteSchema(schema));
}

/** The version of the installed schema, 0 where there is none. */
export async function installedVersion(db: Database, schema: string): Promise<number> {
  const [ledger] = await db.query<{ found: boolean }>(
    "select to_regclass($1::text) is not null as found",
    [`${quoteSchema(schema)}.migrations`],
    { isKept: true },
  );
  if (!ledger?.found) return 0;
  const [row] = await db.query<{ version: number }>(
    inSchema(schema, 'select coalesce(max(version), 0)::integer as version from "bemi".migrations'),
    [],
    { isKept: true },
  );
  return Number(row?.version ?? 0);
}

/** @throws {BemiError} `schema_missing` */
export async function requireInstalled(db: Database, schema: string): Promise<number> {
  const version = await installedVersion(db, schema);
  if (version > 0) return version;
  throw schemaMissing(schema);
}

export function schemaMissing(schema: string): BemiError {
  return new BemiError("schema_missing", `Bemi is not installed in the schema "${schema}" of this database`, {
    hint: `Run: bemi init${schemaFlag(schema)} (or call install() of @bemi/core/install)`,
  });
}

/** What a command of `bemi` needs besides, to be about this schema. */
export function schemaFlag(schema: string): string {
  return schema === DEFAULT_SCHEMA ? "" : ` --schema '${schema}'`;
}
