import { createWriteStream } from "node:fs";
import { chmod, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { once } from "node:events";
import postgres from "postgres";
import { install } from "@bemi/core/install";
import { startServer } from "../test/support/servers.ts";
import { compare, cpuClock, median, tell } from "./measure.ts";

const ROWS = Number(process.env.BENCH_ROWS ?? 200_000);

// BENCH_STORED=10000000 is the long form: some ten minutes and 10 GB.
const STORED = Number(process.env.BENCH_STORED ?? 1_000_000);
const DAYS = 90;
const STEPS = 10;

/**
 * How fast the log takes rows: COPY of WAL-like changes into it, beside a bare table of the same columns, and the more
 * there are in it already.
 */
export async function ingest(version: string): Promise<void> {
  const file = join(tmpdir(), `bemi-bench-${process.pid}.tsv`);
  await using server = Object.assign(await startServer(version, ["fsync=on", "max_wal_size=8GB"]), {
    [Symbol.asyncDispose]: async () => {
      await server.remove();
      await rm(file, { force: true });
    },
  });
  await writeRows(file, { from: 0, rows: ROWS, days: 0 });
  const sql = postgres(server.url(), { max: 1, onnotice() {} });
  await install(sql);
  await sql.unsafe(`
    create table bare (like bemi.changes including defaults);
    create table without_gin (like bemi.changes including all);
    do $$ begin execute (select format('drop index %s', i.indexrelid::regclass) from pg_index i
      where i.indrelid = 'without_gin'::regclass and pg_get_indexdef(i.indexrelid) like '% USING gin %'); end $$;
    create table two_gins (like bemi.changes including all);
    create index on two_gins using gin (after jsonb_path_ops);
    create table three_gins (like bemi.changes including all);
    create index on three_gins using gin (before jsonb_path_ops);
    create index on three_gins using gin (after jsonb_path_ops)`);
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
    subject("with its indexes but the GIN", "without_gin"),
    subject("bemi.changes, a GIN on context", "bemi.changes"),
    subject("with a GIN on after too", "two_gins"),
    subject("with GINs on before and after too", "three_gins"),
  ], { rounds: 3 });
  await subject("", "bemi.changes").prepare();
  await grow(sql, { file, columns, version });
  await sql.end();
}

/** Whether the rate stays what it was while the log grows, as time goes on, over several partitions. */
async function grow(
  sql: postgres.Sql,
  { file, columns, version }: { readonly file: string; readonly columns: string; readonly version: string },
): Promise<void> {
  const rows = STORED / STEPS;
  const [backend] = await sql<{ pid: number }[]>`select pg_backend_pid() as pid`;
  const clock = cpuClock(backend?.pid ?? 0);
  const costs: number[] = [];
  for (let from = 0; from < STORED; from += rows) {
    await writeRows(file, { from, rows, days: DAYS });
    const start = clock();
    await sql.unsafe(`copy bemi.changes (${columns}) from '${file}'`);
    costs.push(Number(clock() - start) / 1e3 / rows);
  }
  const [log] = await sql<{ rows: number; partitions: number }[]>`
    select count(*)::float8 as rows, count(distinct tableoid)::int as partitions from bemi.changes`;
  const last = median(costs.slice(-3)) / median(costs.slice(0, 3));
  const title = `COPY into bemi.changes while it grows to ${log?.rows.toLocaleString("en")} changes`;
  const steps = costs.map((cost) => cost.toFixed(1)).join(", ");
  console.log(
    `\n${title} in ${log?.partitions} partitions, PostgreSQL ${version} ` +
      `(the server's CPU for a change, by tenths of the way)\n  ${steps} µs; the last three tenths beside the first: ${
        last.toFixed(2)
      }`,
  );
  tell(title, "the last three tenths", `the server's CPU × ${last.toFixed(2)}`, "the first three");
}

const began = Date.now();

/** @param days over which all that is to be stored is spread; 0 for one transaction each millisecond */
async function writeRows(
  file: string,
  { from, rows, days }: { readonly from: number; readonly rows: number; readonly days: number },
): Promise<void> {
  const stream = createWriteStream(file);
  const step = days === 0 ? 1 : days * 86_400_000 / (STORED / 10);
  for (let i = from; i < from + rows; i++) {
    const transaction = Math.floor(i / 10);
    const lsn = 0x1000000n + BigInt(transaction) * 2048n;
    const at = new Date(began + transaction * step).toISOString();
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
