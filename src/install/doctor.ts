import { connect } from "../database/connect.ts";
import type { DatabaseLike } from "../database/port.ts";
import { questions } from "../generated/sql.ts";
import { DEFAULT_SCHEMA } from "../identifiers.ts";
import { SCHEMA_VERSION, type SchemaOptions } from "./install.ts";
import { inSchema, installedVersion, schemaFlag, schemaMissing } from "./schema.ts";

/** One way in which tracking is off or wrong, or could come to be. */
export interface Finding {
  /** `error`: changes are lost or wrong, or can be rewritten; `warning`: they can come to be; `note`: by choice. */
  readonly severity: "error" | "warning" | "note";
  /** What kind of finding it is, such as `trigger-disabled`. */
  readonly name: string;
  /** What it is about: a table, a role, a slot. */
  readonly object: string;
  /** What is off, in a sentence. */
  readonly problem: string;
  /** What mends it, to be pasted: SQL, which ends in a semicolon, or a command of `bemi`. */
  readonly repair: string;
}

/**
 * Looks for every way in which tracking is silently off or wrong, worst first. Changes nothing.
 *
 * @throws {BemiError} `schema_missing`
 * @example
 * ```ts
 * import postgres from "postgres";
 * import { doctor } from "@bemi/core/install";
 * for (const { severity, problem, repair } of await doctor(postgres())) console.log(severity, problem, repair);
 * ```
 */
export async function doctor(db: DatabaseLike, options: SchemaOptions = {}): Promise<Finding[]> {
  const schema = options.schema ?? DEFAULT_SCHEMA;
  const flag = schemaFlag(schema);
  return await connect(db).transaction(async (tx) => {
    await tx.execute("set transaction read only; set local search_path = pg_catalog, pg_temp");
    const found = versionFinding(await installedVersion(tx, schema), schema);
    const findings: Finding[] = found ? [found] : [];
    for (const question of found ? [] : questions) {
      findings.push(...await tx.query<Finding>(inSchema(schema, question)));
    }
    return findings
      .sort((a, b) => SEVERITIES.indexOf(a.severity) - SEVERITIES.indexOf(b.severity))
      .map((finding) => ({
        ...finding,
        repair: finding.repair.replace(/^bemi (?:generate )?[a-z-]+/, (command) => command + flag),
      }));
  });
}

const SEVERITIES: readonly Finding["severity"][] = ["error", "warning", "note"];

// The questions are put to the schema of this version: of another one they would be the wrong ones.
function versionFinding(version: number, schema: string): Finding | undefined {
  if (version === SCHEMA_VERSION) return undefined;
  if (version === 0) {
    throw schemaMissing(schema);
  }
  const isOlder = version < SCHEMA_VERSION;
  return {
    severity: "error",
    name: isOlder ? "schema-old" : "schema-new",
    object: schema,
    problem: `has version ${version}, ${isOlder ? "older" : "newer"} than this library's ${SCHEMA_VERSION}`,
    repair: isOlder ? "bemi migrate" : "npm install @bemi/core@latest",
  };
}
