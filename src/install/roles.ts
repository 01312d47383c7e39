import { DEFAULT_SCHEMA } from "../identifiers.ts";
import type { SchemaOptions } from "./install.ts";
import { inSchema } from "./schema.ts";

/**
 * SQL that makes the roles of least privilege, for the owner of the installation to read and run: `bemi_reader` reads
 * the log, `bemi_worker` fills it from the Write-Ahead Log. An application needs no right on it at all.
 * Both cannot log in until somebody lets them, with a password of their own choice.
 */
export function rolesSql(options: SchemaOptions = {}): string {
  return inSchema(options.schema ?? DEFAULT_SCHEMA, ROLES);
}

const ROLES = `-- Reads the log, and nothing else.
create role bemi_reader;
grant usage on schema "bemi" to bemi_reader;
grant select on "bemi".changes, "bemi".sources, "bemi".gaps to bemi_reader;

-- Runs bemi-poll. REPLICATION is a superuser's to give, is not inherited, and reads the rows of every published table.
create role bemi_worker replication;
grant usage on schema "bemi" to bemi_worker;
grant select on "bemi".migrations, "bemi".tracked_tables to bemi_worker;
grant select, insert, update on "bemi".checkpoints to bemi_worker;
grant insert on "bemi".changes, "bemi".gaps to bemi_worker;
grant execute on function "bemi".own_name(), "bemi".slot_name(), "bemi".this_cluster(),
  "bemi".register_source(text, integer, text, text), "bemi".key_columns(oid),
  "bemi".masked_columns(oid, text[], smallint[]), "bemi".write_or_set_aside(uuid, text),
  "bemi".maintain() to bemi_worker;

-- Then: alter role bemi_worker login password '…'; grant bemi_reader to somebody;
`;
