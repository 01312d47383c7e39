import { spawnSync } from "node:child_process";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import postgres from "postgres";
import { install, track } from "../src/install/mod.ts";
import { createSlot, runWorker } from "../src/worker/mod.ts";
import { startServer } from "../test/support/servers.ts";
import { findClient } from "./find-client.ts";
import { compare, type Subject } from "./measure.ts";

const ROWS = Number(process.env.BENCH_ROWS ?? 100_000);

/** The worker from WAL to log, beside what reading the slot and storing the rows cost without it. */
export async function worker(version: string): Promise<void> {
  const server = await startServer(version, ["fsync=on", "max_wal_size=8GB"]);
  const file = join(tmpdir(), `bemi-bench-${process.pid}.tsv`);
  try {
    const sql = postgres(server.url(), { max: 1, onnotice() {} });
    // The load is not what is timed: its commits need not wait for the disk.
    await sql.unsafe("set synchronous_commit = off");
    await install(sql);
    const { slot } = await createSlot(sql);
    await sql.unsafe(
      "create table todos (id int primary key, title text, is_completed boolean default false, list_id int)",
    );
    await track(sql, "todos", { capture: "wal" });
    const runOnce = (mode: "poll" | "stream"): Promise<void> =>
      runWorker({ source: server.url(), once: true, mode }).finished;
    const write = async (): Promise<void> => {
      await sql.unsafe("truncate todos");
      await runOnce("poll");
      await sql.unsafe("begin; set local bemi.maintenance = 'on'; truncate bemi.changes; commit");
      await sql.unsafe(`do $$ begin
        for i in 0..${ROWS / 10 - 1} loop
          insert into todos (id, title, list_id) select i * 10 + n, 'todo number ' || n, n from generate_series(1, 10) n;
          commit;
        end loop; end $$`);
      await sql.unsafe("checkpoint");
    };
    const subject = (name: string, run: () => Promise<unknown>): Subject => ({
      name,
      isHeadline: name.startsWith("the worker"),
      prepare: write,
      run: async () => {
        await run();
        return ROWS;
      },
    });
    // The very rows that the worker stores, for the bare COPY.
    await write();
    await runOnce("poll");
    await sql.unsafe(`copy (select * from bemi.changes) to '${file}'`);
    const copy: Subject = {
      name: "COPY of the same rows into bemi.changes",
      prepare: async () => {
        await sql.unsafe(
          "begin; set local bemi.maintenance = 'on'; truncate bemi.changes; commit; checkpoint",
        );
      },
      run: async () => {
        await sql.unsafe(`copy bemi.changes from '${file}'`);
        return ROWS;
      },
    };
    const recvlogical = findClient("pg_recvlogical");
    if (!recvlogical) console.log("pg_recvlogical is not installed: that baseline is left out");
    await compare(
      `${ROWS.toLocaleString("en")} changes in transactions of 10, PostgreSQL ${version}, fsync on`,
      [
        copy,
        subject(
          "reading the slot in SQL",
          () =>
            sql.unsafe(`select count(*) from pg_logical_slot_peek_binary_changes('${slot}', null, null,
            'proto_version', '1', 'publication_names', 'bemi', 'messages', 'true')`),
        ),
        ...(recvlogical
          ? [subject("pg_recvlogical to /dev/null", async () => {
            const [{ lsn } = { lsn: "" }] = await sql<
              { lsn: string }[]
            >`select pg_current_wal_lsn()::text as lsn`;
            const { status, stderr } = spawnSync(recvlogical, [
              "-d",
              server.url(),
              ...["--slot", slot, "--start", "--endpos", lsn, "-f", "/dev/null", "--no-loop"],
              ...["-o", "proto_version=1", "-o", "publication_names=bemi", "-o", "messages=true"],
            ], { encoding: "utf8" });
            if (status !== 0) throw new Error(stderr);
          })]
          : []),
        subject("the worker, catching up", () => runOnce("poll")),
        subject("the worker, by stream", () => runOnce("stream")),
      ],
      { rounds: 3, unit: "changes/s" },
    );
    await sql.end();
  } finally {
    await server.remove();
    await rm(file, { force: true });
  }
}
