import postgres from "postgres";
import { install, track } from "../src/install/mod.ts";
import { createSlot, runWorker } from "../src/worker/mod.ts";
import { startServer } from "../test/support/servers.ts";
import { compare } from "./measure.ts";

const ROWS = Number(process.env.BENCH_ROWS ?? 300_000);

/** The worker from WAL to log, beside what the server alone needs to decode the slot. */
export async function poll(version: string): Promise<void> {
  const server = await startServer(version, ["fsync=on", "max_wal_size=8GB"]);
  try {
    const sql = postgres(server.url(), { max: 1, onnotice() {} });
    await install(sql);
    const { slot } = await createSlot(sql);
    await sql.unsafe(
      "create table todos (id int primary key, title text, is_completed boolean default false, list_id int)",
    );
    await track(sql, "todos", { capture: "wal" });
    const writeAll = async (): Promise<void> => {
      await sql.unsafe(`truncate todos`);
      await runWorker({ source: server.url(), once: true }).finished;
      await sql.unsafe(`do $$ begin
        for i in 0..${ROWS / 10 - 1} loop
          insert into todos (id, title, list_id) select i * 10 + n, 'todo number ' || n, n from generate_series(1, 10) n;
          commit;
        end loop; end $$`);
      await sql.unsafe("checkpoint");
    };
    await compare(
      `${ROWS.toLocaleString("en")} changes in transactions of 10, PostgreSQL ${version}, fsync on`,
      [
        {
          name: "reading the slot alone",
          prepare: writeAll,
          run: async () => {
            await sql.unsafe(`select count(*) from pg_logical_slot_peek_binary_changes('${slot}', null, null,
            'proto_version', '1', 'publication_names', 'bemi', 'messages', 'true')`);
            return ROWS;
          },
        },
        {
          name: "the worker, from WAL to log",
          prepare: writeAll,
          run: async () => {
            await runWorker({ source: server.url(), once: true }).finished;
            return ROWS;
          },
        },
      ],
      { rounds: 3, unit: "changes/s" },
    );
    await sql.end();
  } finally {
    await server.remove();
  }
}
