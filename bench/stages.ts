import type { Buffer } from "node:buffer";
import postgres from "postgres";
import { install, track } from "@bemi/core/install";
import { openConnection } from "../src/worker/connection.ts";
import { decode, type PgoutputMessage, type RawMessage } from "../src/worker/decode.ts";
import { copyLine, type Origin } from "../src/worker/encode.ts";
import { createSlot } from "@bemi/core/worker";
import { peek } from "../src/worker/peek.ts";
import { openSource } from "../src/worker/source.ts";
import { type Change, stitcher } from "../src/worker/stitch.ts";
import { readTableHistory } from "../src/worker/table-history.ts";
import { typeCatalog } from "../src/worker/types.ts";
import { startServer } from "../test/support/servers.ts";
import { compare } from "./measure.ts";

const ROWS = 50_000;

/** What the worker computes between reading and writing, stage by stage, on WAL of a real server held in memory. */
export async function stages(version: string): Promise<void> {
  const server = await startServer(version);
  try {
    const sql = postgres(server.url(), { max: 1, onnotice() {} });
    await install(sql);
    const { slot } = await createSlot(sql);
    await sql.unsafe(
      "create table todos (id int primary key, task text, is_completed boolean, due timestamptz, price numeric, tags jsonb)",
    );
    await track(sql, "todos", { capture: "wal" });
    await sql.unsafe(`do $$ begin for i in 0..${ROWS / 10 - 1} loop
      perform set_config('bemi.context', '{"user_id": 42, "endpoint": "/todos"}', true);
      insert into todos select i * 10 + n, 'todo number ' || n, false, now(), n * 1.5, '{"a": [1, 2]}' from generate_series(1, 5) n;
      update todos set is_completed = true where id > i * 10;
      commit;
    end loop; end $$`);
    const connection = await openConnection(server.url());
    const source = await openSource(connection, "bemi", undefined);
    const raw: RawMessage[] = [];
    const reader = await openConnection(server.url());
    const upTo = 0xffffffffffffffffn;
    for await (
      const batch of peek(reader, { slot, publication: source.publication, upTo, limit: 2 ** 31 - 1 })
    ) {
      raw.push(...batch);
    }
    const types = typeCatalog(source);
    const messages = raw.map(([lsn, data]): [bigint, PgoutputMessage] => [lsn, decode(data)]);
    for (const [, message] of messages) {
      if (message.kind === "relation") await types.load(message.columns.map(({ type }) => type));
    }
    const tables = await readTableHistory(source);
    const stitched = (emit: (change: Change) => void): void => {
      const stitch = stitcher({
        table: (oid, lsn) => tables.at(oid, lsn),
        type: (oid, known) => types.get(oid, known?.types),
      });
      for (const [lsn, message] of messages) stitch.push(message, lsn, emit);
    };
    const changes: Change[] = [];
    stitched((change) => changes.push(change));
    const origin: Origin = { sourceId: 1, database: "postgres", seed: 1, queuedAt: new Date().toISOString() };
    const stage = (name: string, run: () => number) => ({
      name,
      run: () => {
        if (run() === 0) throw new Error(`${name} did nothing`);
        return Promise.resolve(changes.length);
      },
    });
    await compare(`${changes.length.toLocaleString("en")} changes in memory, WAL of PostgreSQL ${version}`, [
      stage("touching every byte", () => raw.reduce((sum, [, data]) => sum + checksum(data), 0)),
      stage("decode", () => raw.reduce((sum, [, data]) => sum + decode(data).kind.length, 0)),
      stage("stitch, with values to JSON", () => {
        let sum = 0;
        stitched((change) => sum += change.after.length);
        return sum;
      }),
      stage("encode", () => changes.reduce((sum, change) => sum + copyLine(change, origin).length, 0)),
    ], { rounds: 9, unit: "changes/s" });
    await Promise.all([sql, reader, connection].map((client) => client.end()));
  } finally {
    await server.remove();
  }
}

function checksum(bytes: Buffer): number {
  let sum = 0;
  for (const byte of bytes) sum += byte;
  return sum;
}
