import { connect } from "../database/connect.ts";
import type { Database, DatabaseLike } from "../database/port.ts";
import { SQLSTATE, sqlstateOf } from "../database/sqlstate.ts";
import { BemiError } from "../errors.ts";
import { migrations } from "../generated/sql.ts";
import { DEFAULT_SCHEMA, quoteSchema } from "../identifiers.ts";
import { inSchema, installedVersion } from "./schema.ts";

/** Options of everything that works on an installation. */
export interface SchemaOptions {
  /**
   * The schema that holds everything of Bemi's.
   * @default "bemi"
   */
  readonly schema?: string | undefined;
}

/** What {@linkcode install} found and left, as schema versions; 0 is "not installed". */
export interface InstallResult {
  /** The version before; 0 where there was none. */
  readonly from: number;
  /** The version now. */
  readonly to: number;
}

/** The version of the schema that this library brings. */
export const SCHEMA_VERSION: number = migrations.length;

/**
 * Creates or upgrades Bemi's schema, in one transaction. Does nothing where it is up to date; of two that run at
 * once, one waits for the other.
 *
 * @throws {BemiError} `schema_incompatible`, `privilege_missing`, `invalid_name`
 * @example
 * ```ts
 * import postgres from "postgres";
 * import { install, track } from "@bemi/core/install";
 * const sql = postgres(); // as the owner of the tables
 * const { from, to } = await install(sql);
 * if (from < to) console.log(`from version ${from} to ${to}`);
 * await track(sql, "todos");
 * ```
 */
export async function install(
  db: DatabaseLike,
  options: SchemaOptions = {},
): Promise<InstallResult> {
  const schema = options.schema ?? DEFAULT_SCHEMA;
  quoteSchema(schema);
  try {
    return await connect(db).transaction((tx) => migrate(tx, schema));
  } catch (error) {
    if (sqlstateOf(error) === SQLSTATE.insufficientPrivilege) {
      throw new BemiError("privilege_missing", `This role may not create or change the schema "${schema}"`, {
        hint:
          "Run this as its owner, or as the owner of the database; or: grant create on database … to the role.",
        cause: error,
      });
    }
    throw error;
  }
}

async function migrate(tx: Database, schema: string): Promise<InstallResult> {
  await tx.query(LOCK);
  const from = await installedVersion(tx, schema);
  if (from > SCHEMA_VERSION) {
    throw new BemiError(
      "schema_incompatible",
      `The schema "${schema}" has version ${from}, newer than this library's ${SCHEMA_VERSION}`,
      { hint: "Upgrade @bemi/core." },
    );
  }
  if (from === SCHEMA_VERSION) return { from, to: from };
  await tx.execute(script(schema, from, from === 0 && await isFree(tx, schema)));
  return { from, to: SCHEMA_VERSION };
}

/** Options of the installation as SQL. */
export interface InstallSqlOptions extends SchemaOptions {
  /**
   * The version to upgrade from.
   * @default 0, which creates everything
   */
  readonly from?: number | undefined;
}

/**
 * What {@linkcode install} does, as statements that belong into one transaction, and leave its settings as they were.
 *
 * @throws {BemiError} `usage`, `invalid_name`
 */
export function installStatements(options: InstallSqlOptions = {}): string {
  const { schema = DEFAULT_SCHEMA, from = 0 } = options;
  quoteSchema(schema);
  if (!Number.isInteger(from) || from < 0 || from >= SCHEMA_VERSION) {
    throw new BemiError("usage", `There is no upgrade from version ${from}`, {
      hint: `This library's version is ${SCHEMA_VERSION}: pass a lower one, or none to install.`,
    });
  }
  return `${LOCK};\n${script(schema, from, true)}\n`;
}

// One lock for all schemas of the database: they share the view public.changes.
const LOCK = "select pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('bemi.install', 0))";

function script(schema: string, from: number, createsSchema: boolean): string {
  const steps = migrations.slice(from).map(({ version, name, sql }) =>
    `insert into "bemi".migrations (version, name) values (${version}, '${name}');\n${sql}`
  );
  const ledger = `${createsSchema ? SCHEMA : ""}${LEDGER}`;
  return inSchema(
    schema,
    [
      `${SETTINGS};`,
      `${MUTE_OTHER};`,
      // The event trigger is not to follow what only the next migrations complete.
      "select set_config('bemi.reconciling', 'on', true);",
      ...(from === 0 ? [ledger] : []),
      ...steps,
      `${TAKE_BACK_GRANTS};`,
      `${UNMUTE_OTHER};`,
      `${FORMER_SETTINGS};`,
      "select set_config('bemi.reconciling', '', true);",
    ].join("\n\n"),
  );
}

const SETTINGS = `select set_config('bemi.former_path', current_setting('search_path'), true),
  set_config('bemi.former_messages', current_setting('client_min_messages'), true);
set local search_path = pg_catalog, pg_temp;
set local client_min_messages = warning`;

// A migration tool's transaction goes on.
const FORMER_SETTINGS = `select set_config('search_path', current_setting('bemi.former_path'), true),
  set_config('client_min_messages', current_setting('bemi.former_messages'), true)`;

// Another Bemi's event trigger calls its procedure without a schema, which fails under this search path, and gives every
// new table a row trigger, at the price of a lock on all tables there are. Where it is somebody else's, it is served.
const MUTE_OTHER = `do $$
declare
  v_other record;
begin
  select evtenabled as enabled, pg_has_role(evtowner, 'usage') as is_own into v_other
  from pg_event_trigger where evtname = '_bemi_create_table_trigger' and evtenabled <> 'D';
  if v_other.is_own then
    perform set_config('bemi.muted', v_other.enabled::text, true);
    alter event trigger _bemi_create_table_trigger disable;
  elsif found then
    set local search_path = pg_catalog, public, pg_temp;
  end if;
end
$$`;

const UNMUTE_OTHER = `do $$
begin
  if current_setting('bemi.muted', true) <> '' then
    execute 'alter event trigger _bemi_create_table_trigger ' || case current_setting('bemi.muted')
      when 'A' then 'enable always' when 'R' then 'enable replica' else 'enable' end;
    perform set_config('bemi.muted', '', true);
  end if;
end
$$`;

const SCHEMA = `create schema "bemi";
comment on schema "bemi" is 'Change tracking by Bemi';
`;

const LEDGER = `create table "bemi".migrations (
  version integer primary key,
  name text not null,
  applied_at timestamptz not null default clock_timestamp()
);`;

/** Whether the name is free; somebody else's schema may be used as well, while it is empty. */
async function isFree(tx: Database, schema: string): Promise<boolean> {
  const [existing] = await tx.query<{ used: boolean }>(
    `select exists (select from pg_class where relnamespace = n.oid)
      or exists (select from pg_proc where pronamespace = n.oid) as used
    from pg_namespace n where nspname = $1::text`,
    [schema],
  );
  if (!existing?.used) return !existing;
  throw new BemiError("schema_incompatible", `The schema "${schema}" holds objects that are not Bemi's`, {
    hint: "Choose another schema for Bemi with --schema, or the option `schema`.",
  });
}

// Functions can be executed by everybody unless that is taken back, and hosts' default privileges give more. Only what
// this transaction made is touched: later grants are somebody's decision.
const TAKE_BACK_GRANTS = `do $$
declare
  v_object record;
  v_this xid := pg_current_xact_id()::xid;
  v_schema oid := '"bemi"'::regnamespace;
begin
  for v_object in
    select distinct k.kind, k.name, case g.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end as grantee
    from (
      select 'schema' as kind, oid::regnamespace::text as name, coalesce(nspacl, acldefault('n', nspowner)) as acl, nspowner as owner
      from pg_namespace where oid = v_schema and xmin = v_this
      union all
      select case relkind when 'S' then 'sequence' else 'table' end, oid::regclass::text, relacl, relowner
      from pg_class where relnamespace = v_schema and relkind in ('r', 'p', 'v', 'S')
      union all
      select 'function', oid::regprocedure::text, coalesce(proacl, acldefault('f', proowner)), proowner
      from pg_proc where pronamespace = v_schema and xmin = v_this
      union all
      select 'type', oid::regtype::text, coalesce(typacl, acldefault('T', typowner)), typowner
      from pg_type where typnamespace = v_schema and xmin = v_this and typtype = 'c'
        and typrelid in (select oid from pg_class where relkind = 'c')
    ) as k, aclexplode(k.acl) g
    where g.grantee <> k.owner
  loop
    execute format('revoke all on %s %s from %s', v_object.kind, v_object.name, v_object.grantee);
  end loop;
end
$$`;
