import { PGlite } from "@electric-sql/pglite";
import { citext } from "@electric-sql/pglite/contrib/citext";
import { hstore } from "@electric-sql/pglite/contrib/hstore";
import { readFile } from "node:fs/promises";
import postgres from "postgres";
import { connect } from "../../src/database/connect.ts";
import type { Database, DatabaseLike } from "../../src/database/port.ts";
import { createSlot, runWorker, type Worker } from "../../src/worker/mod.ts";
import { VALUE_SETTINGS } from "../../src/worker/values.ts";
import { install } from "../../src/install/mod.ts";
import { copyIn } from "../../src/worker/sql.ts";
import type { Setting } from "./scenario.ts";
import type { Statement } from "./statements.ts";

export type LaneName = "plain" | "trigger" | "poll" | "stream";

/** One change, as a lane has it. Images and context are jsonb as text. */
export interface Row {
  readonly transaction: string;
  readonly schema: string;
  readonly table: string;
  readonly operation: string;
  readonly key: string | null;
  readonly former: string | null;
  readonly before: string;
  readonly after: string;
  readonly context: string;
  /** By what it was captured. */
  readonly capture?: "trigger" | "wal";
  /** Of the oracle: INSERT, UPDATE, DELETE; what a partition move is made of. */
  readonly statement?: string;
}

/** A database with one way of capture, or with the oracle. */
export interface Lane extends AsyncDisposable {
  readonly name: LaneName;
  /** For looking in, beside the application's session. */
  readonly inspect: Database;
  readonly version: number;
  readonly encoding: string;
  /** The application's session, while there is one. */
  readonly session: Database;
  /** Begins a session of the application's. */
  begin(settings: readonly Setting[]): Promise<void>;
  /** `ok`, or the SQLSTATE. */
  execute(statement: Statement): Promise<string>;
  end(): Promise<void>;
  /** All changes of the schemas whose names begin so, in the total order, once they are in the log. */
  collect(): Promise<Row[]>;
  /** Empties the log. */
  clear(): Promise<void>;
}

const COLLECT = `
  select json_build_object('transaction', transaction_id, 'schema', schema, 'table', "table", 'operation', operation,
    'key', primary_key, 'former', former_primary_key, 'before', before::text, 'after', after::text, 'context', (context #- '{db,pid}')::text,
    'capture', (select capture from bemi.sources where id = source_id))::text as json
  from bemi.changes where schema ~ '^s[0-9]+z' order by source_id, commit_lsn, transaction_index`;

const COLLECT_PLAIN = `
  select json_build_object('transaction', xid::text::bigint, 'schema', schema, 'table', "table", 'operation', operation, 'statement', statement,
    'key', key, 'former', former, 'before', before::text, 'after', after::text, 'context', context)::text as json
  from audit.log order by number`;

async function prepareDatabase(name: LaneName, db: DatabaseLike & object, inspect: Database): Promise<void> {
  await inspect.execute(
    "create extension if not exists hstore schema public; create extension if not exists citext schema public",
  );
  if (name === "plain") {
    await inspect.execute(await readFile(new URL("oracle.sql", import.meta.url), "utf8"));
    return;
  }
  await install(db);
  await inspect.execute("create table public.markers (id int primary key)");
  await inspect.execute(
    `update bemi.settings set track_all = true, capture = '${name === "trigger" ? "trigger" : "wal"}'`,
  );
  await inspect.query("select bemi.follow_ddl()");
  await inspect.query("select bemi.reconcile()");
}

async function collectFrom(name: LaneName, inspect: Database): Promise<Row[]> {
  const rows = await inspect.query<{ json: string }>(name === "plain" ? COLLECT_PLAIN : COLLECT);
  return rows.map((row) => JSON.parse(row.json) as Row);
}

const CLEAR =
  "select set_config('bemi.maintenance', 'on', true); truncate bemi.changes; delete from bemi.set_aside";

let counter = 0;

/** A lane on a real server. */
export async function openLane(
  { name, server, encoding }: { name: LaneName; server: string; encoding: string },
): Promise<Lane> {
  const database = `lane_${name}_${encoding.toLowerCase()}_${++counter}`;
  const quiet = { onnotice() {} };
  const admin = postgres(`${server}postgres`, { max: 1, ...quiet });
  await admin.unsafe(`create database ${database} encoding '${encoding}' locale 'C' template template0`);
  const url = server + database;
  const pinned = Object.fromEntries(
    Object.entries(VALUE_SETTINGS).filter(([key]) => key !== "client_encoding"),
  );
  const inspector = postgres(url, {
    max: 2,
    ...quiet,
    connection: { ...pinned, search_path: "public", default_transaction_isolation: "read committed" },
  });
  const inspect = connect(inspector);
  await prepareDatabase(name, inspector, inspect);
  let worker: Worker | undefined;
  if (name === "poll" || name === "stream") await createSlot(inspector);
  if (name === "stream") worker = runWorker({ source: url, mode: name });
  const [shown] = await inspector`show server_version_num`;
  let session: postgres.Sql | undefined;
  let isChanged = false;
  let marker = 0;
  const caughtUp = async (): Promise<void> => {
    if (name === "poll") {
      // Lets the slot begin later, and a peek with it: each reads again what all databases of the cluster wrote since.
      await inspect.execute("checkpoint");
      await runWorker({ source: url, mode: name, once: true }).finished;
    }
    if (!worker) return;
    const id = String(++marker);
    await inspect.query("insert into public.markers values ($1::text::int)", [id]);
    let failure: unknown;
    worker.finished.catch((error: unknown) => failure = error);
    for (;;) {
      const [there] = await inspect.query(
        "select from bemi.changes where \"table\" = 'markers' and primary_key = $1::text",
        [id],
      );
      if (there) return;
      if (failure) throw failure;
      await new Promise((done) => setTimeout(done, 10));
    }
  };
  return {
    name,
    encoding,
    inspect,
    get session() {
      if (!session) throw new Error("No session");
      return connect(session);
    },
    version: Math.floor(Number(shown?.server_version_num) / 10000),
    begin: async (settings) => {
      isChanged = false;
      for (const { by, name: key, value } of settings) {
        if (by === "session") continue;
        await inspect.execute(
          `alter ${
            by === "role" ? "role postgres in database" : "database"
          } ${database} set ${key} = '${value}'`,
        );
        isChanged = true;
      }
      if (isChanged) await session?.end({ timeout: 5 });
      if (isChanged || !session) {
        session = postgres(url, {
          max: 1,
          ...quiet,
          fetch_types: false,
          connection: { application_name: "differential" },
        });
      }
      for (const { by, name: key, value } of settings) {
        if (by === "session") await session.unsafe(`set ${key} = '${value}'`);
      }
    },
    execute: async ({ sql: text, protocol, data = "" }) => {
      if (!session) throw new Error("No session");
      // Prepared transactions share one name space in the cluster.
      const sql = text.replace(" prepared '", ` prepared '${name} `).replace(
        "prepare transaction '",
        `prepare transaction '${name} `,
      );
      try {
        if (protocol === "copy") {
          const copy = await copyIn(session as never, sql);
          await copy.write(data);
          await copy.end();
        } else if (protocol === "prepared") {
          await session.unsafe(sql, [], { prepare: true, simple: false } as never);
        } else await session.unsafe(sql);
        return "ok";
      } catch (error) {
        const { code } = error as { code?: unknown };
        if (typeof code !== "string" || !/^[0-9A-Z]{5}$/.test(code)) throw error;
        return code;
      }
    },
    end: async () => {
      if (!session) return;
      await session.unsafe("rollback");
      for (
        const { gid }
          of await inspector`select gid from pg_prepared_xacts where database = current_database()`
      ) {
        await inspector.unsafe(`rollback prepared '${gid}'`);
      }
      await session.unsafe("reset all; discard temp");
      if (isChanged) {
        await inspect.execute(`alter role postgres in database ${database} reset all`);
        await inspect.execute(`alter database ${database} reset all`);
        await session.end({ timeout: 5 });
        session = undefined;
      }
    },
    collect: async () => {
      await caughtUp();
      return await collectFrom(name, inspect);
    },
    clear: async () => {
      await inspect.execute(name === "plain" ? "truncate audit.log" : CLEAR);
    },
    [Symbol.asyncDispose]: async () => {
      await worker?.[Symbol.asyncDispose]();
      await session?.end({ timeout: 5 });
      await inspector.unsafe(
        "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = current_database() and not active",
      ).catch(() => {});
      await inspector.end({ timeout: 5 });
      await admin.unsafe(`drop database if exists ${database} with (force)`).catch(() => {});
      await admin.end({ timeout: 5 });
    },
  };
}

/** A lane in PGlite, which has one session. */
export async function openPgliteLane(name: LaneName): Promise<Lane> {
  const db = await PGlite.create({ extensions: { hstore, citext } });
  const inspect = connect(db);
  await prepareDatabase(name, db, inspect);
  const [shown] = await inspect.query<{ version: string }>(
    "select current_setting('server_version_num') as version",
  );
  const reset = async (): Promise<void> => {
    await db.exec("rollback");
    await db.exec("reset all; discard temp");
  };
  return {
    name,
    encoding: "UTF8",
    inspect,
    session: inspect,
    version: Math.floor(Number(shown?.version) / 10000),
    begin: async (settings) => {
      await db.exec("set application_name = 'differential'");
      for (const { name: key, value } of settings) await db.exec(`set ${key} = '${value}'`);
    },
    execute: async ({ sql, protocol, data = "" }) => {
      try {
        if (protocol === "copy") {
          await db.query(sql.replace("stdin", "'/dev/blob'"), [], { blob: new Blob([data]) });
        } else if (protocol === "prepared") await db.query(sql);
        else await db.exec(sql);
        return "ok";
      } catch (error) {
        const { code } = error as { code?: unknown };
        if (typeof code !== "string") throw error;
        return code;
      }
    },
    end: reset,
    collect: () => collectFrom(name, inspect),
    clear: async () => {
      await db.exec(name === "plain" ? "truncate audit.log" : CLEAR);
    },
    [Symbol.asyncDispose]: () => db.close(),
  };
}
