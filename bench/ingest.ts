import { createWriteStream } from "node:fs";
import { chmod, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { once } from "node:events";
import postgres from "postgres";
import { install } from "../src/install/mod.ts";
import { startServer } from "../test/support/servers.ts";
import { compare } from "./measure.ts";

const ROWS = Number(process.env.BENCH_ROWS ?? 300_000);

/** How fast the log takes rows: COPY of WAL-like changes into it, beside a bare table of the same columns. */
export async function ingest(version: string): Promise<void> {
  const file = join(tmpdir(), `bemi-bench-${process.pid}.tsv`);
  await using server = Object.assign(await startServer(version, ["fsync=on", "max_wal_size=8GB"]), {
    [Symbol.asyncDispose]: async () => {
      await server.remove();
      await rm(file, { force: true });
    },
  });
  await writeRows(file);
  const sql = postgres(server.url(), { max: 1, onnotice() {} });
  await install(sql);
  await sql.unsafe(`
    create table bare (like bemi.changes including defaults);
    create table ginned (like bemi.changes including all);
    create index on ginned using gin (before jsonb_path_ops);
    create index on ginned using gin (after jsonb_path_ops)`);
  const columns =
    (await sql`select string_agg(format('%I', attname), ', ' order by attnum) as names from pg_attribute
    where attrelid = 'bemi.changes'::regclass and attnum > 0 and attname <> 'created_at'`)[0]
      ?.names as string;
  const subject = (name: string, table: string) => ({
    name,
    prepare: async () => {
      await sql.unsafe(`begin; set local bemi.maintenance = 'on'; truncate ${table}; commit; checkpoint`);
    },
    run: async () => {
      await sql.unsafe(`copy ${table} (${columns}) from '${file}'`);
      return ROWS;
    },
  });
  await compare(`COPY of ${ROWS.toLocaleString("en")} changes, PostgreSQL ${version}, fsync on`, [
    subject("bare table", "bare"),
    subject("bemi.changes", "bemi.changes"),
    subject("with GINs on before and after", "ginned"),
  ], { rounds: 3 });
  await sql.end();
}

async function writeRows(file: string): Promise<void> {
  const stream = createWriteStream(file);
  const now = Date.now();
  for (let i = 0; i < ROWS; i++) {
    const transaction = Math.floor(i / 10);
    const lsn = 0x1000000n + BigInt(transaction) * 2048n;
    const at = new Date(now + transaction).toISOString();
    const key = (i * 7919) % 100_000;
    const row = { id: key, title: `todo number ${i}`, is_completed: i % 2 === 0, list_id: i % 500 };
    const context = {
      user_id: i % 1000,
      method: "PUT",
      endpoint: "/todos",
      SQL: 'UPDATE "todos" SET "title" = $1, "is_completed" = $2 WHERE "todos"."id" = $3',
      db: { user: "app", role: "app", pid: 4000 + (i % 50), application_name: "web" },
    };
    const hex = lsn.toString(16).padStart(12, "0");
    const line = [
      `${hex.slice(0, 8)}-${hex.slice(8)}-7000-8000-${(i % 10).toString(16).padStart(12, "0")}`,
      "todos_production",
      "public",
      "todos",
      key,
      "\\N",
      "UPDATE",
      JSON.stringify({ ...row, is_completed: i % 2 === 1 }).replaceAll("\\", "\\\\"),
      JSON.stringify(row).replaceAll("\\", "\\\\"),
      JSON.stringify(context).replaceAll("\\", "\\\\"),
      at,
      at,
      transaction,
      lsn + BigInt(i % 10) * 64n,
      1,
      `0/${lsn.toString(16).toUpperCase()}`,
      i % 10,
    ].join("\t");
    if (!stream.write(line + "\n")) await once(stream, "drain");
  }
  stream.end();
  await once(stream, "finish");
  await chmod(file, 0o644);
}
