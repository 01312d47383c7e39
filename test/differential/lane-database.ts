import { readFile } from "node:fs/promises";
import { connect } from "../../src/database/connect.ts";
import type { Database, DatabaseLike } from "../../src/database/port.ts";
import { install } from "../../src/install/mod.ts";
import type { LaneName, Row } from "./lane.ts";

/** Makes a database what a lane needs: an installation that tracks all tables, or the oracle. */
export async function prepareDatabase(name: LaneName, db: DatabaseLike & object): Promise<void> {
  const database = connect(db);
  await database.execute(
    "create extension if not exists hstore schema public; create extension if not exists citext schema public",
  );
  if (name === "plain") {
    await database.execute(await readFile(new URL("oracle.sql", import.meta.url), "utf8"));
    return;
  }
  await install(db);
  await database.execute("create table public.markers (id int primary key)");
  await database.execute(
    `update bemi.settings set track_all = true, capture = '${name === "trigger" ? "trigger" : "wal"}'`,
  );
  await database.query("select bemi.follow_ddl()");
  await database.query("select bemi.reconcile()");
}

const COLLECT = `
  select json_build_object('transaction', transaction_id, 'schema', schema, 'table', "table", 'operation', operation,
    'key', primary_key, 'former', former_primary_key, 'before', before::text, 'after', after::text, 'context', (context #- '{db,pid}')::text,
    'capture', (select capture from bemi.sources where id = source_id))::text as json
  from bemi.changes where substring(schema from '^s([0-9]+)z')::int >= $1::text::int
  order by source_id, commit_lsn, transaction_index`;

const COLLECT_PLAIN = `
  select json_build_object('transaction', xid::text::bigint, 'schema', schema, 'table', "table", 'operation', operation, 'statement', statement,
    'key', key, 'former', former, 'before', before::text, 'after', after::text, 'context', context)::text as json
  from audit.log
  -- 1.0 is 1, and no change.
  where substring(schema from '^s([0-9]+)z')::int >= $1::text::int and not (operation = 'UPDATE' and before = after)
  order by number`;

/** The changes of the scenarios from a number on. */
export async function collectFrom(name: LaneName, inspect: Database, first: number): Promise<Row[]> {
  const rows = await inspect.query<{ json: string }>(name === "plain" ? COLLECT_PLAIN : COLLECT, [
    String(first),
  ]);
  return rows.map((row) => JSON.parse(row.json) as Row);
}
