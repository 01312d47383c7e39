import { spawnSync } from "node:child_process";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import postgres from "postgres";
import { install, track } from "@bemi/core/install";
import { createSlot, runWorker } from "@bemi/core/worker";
import { startServer } from "../test/support/servers.ts";
import { findClient } from "./find-client.ts";
import { clientClock, compare, serverClock, type Subject } from "./measure.ts";

const ROWS = Number(process.env.BENCH_ROWS ?? 100_000);

interface Shape {
  readonly name: string;
  /** Rows of a transaction. */
  readonly transaction: number;
  /** Of each row's title. */
  readonly characters: number;
  /** Whether the log is in a database of its own. */
  readonly isApart?: true;
}

const SHAPES: Readonly<Record<string, Shape>> = {
  narrow: { name: "changes in transactions of 10", transaction: 10, characters: 20 },
  wide: { name: "changes of 2 KB in transactions of 10", transaction: 10, characters: 2000 },
  small: { name: "changes in transactions of 1", transaction: 1, characters: 20 },
  huge: { name: "changes in one transaction", transaction: ROWS, characters: 20 },
  apart: {
    name: "changes in transactions of 10 into another database",
    transaction: 10,
    characters: 20,
    isApart: true,
  },
};

/**
 * The worker from WAL to log, beside what reading the slot and storing the rows cost without it, catching up and by
 * stream. BENCH_SHAPES=narrow,wide,small,huge,apart is the long form, some minutes; the first alone the short one.
 */
export async function worker(version: string): Promise<void> {
  for (const name of (process.env.BENCH_SHAPES ?? "narrow").split(",")) {
    const shape = SHAPES[name];
    if (!shape) throw new Error(`Unknown shape "${name}": choose from ${Object.keys(SHAPES).join(", ")}`);
    await measure(version, shape);
  }
}

async function measure(version: string, shape: Shape): Promise<void> {
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
    if (shape.isApart) await sql.unsafe("create database log");
    const destination = server.url(shape.isApart ? "log" : "postgres");
    const log = postgres(destination, { max: 1, onnotice() {} });
    if (shape.isApart) await install(log);
    const runOnce = (mode: "poll" | "stream"): Promise<void> =>
      runWorker({ source: server.url(), destination, once: true, mode }).finished;
    const empty = (): Promise<unknown> =>
      log.unsafe("begin; set local bemi.maintenance = 'on'; truncate bemi.changes; commit");
    const write = async (): Promise<void> => {
      await sql.unsafe("truncate todos");
      await runOnce("poll");
      await empty();
      const { transaction, characters } = shape;
      await sql.unsafe(`do $$ begin
        for i in 0..${ROWS / transaction - 1} loop
          insert into todos (id, title, list_id)
          select i * ${transaction} + n, rpad('todo number ' || n, ${characters}, ' and more'), n from generate_series(1, ${transaction}) n;
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
    await log.unsafe(`copy (select * from bemi.changes) to '${file}'`);
    const copy: Subject = {
      name: "COPY of the same rows into bemi.changes",
      prepare: async () => {
        await empty();
        await log.unsafe("checkpoint");
      },
      run: async () => {
        await log.unsafe(`copy bemi.changes from '${file}'`);
        return ROWS;
      },
    };
    const [postmaster] = await sql<{ pid: string }[]>`
      select split_part(pg_read_file('postmaster.pid'), ${"\n"}, 1) as pid`;
    const recvlogical = findClient("pg_recvlogical");
    if (!recvlogical) console.log("pg_recvlogical is not installed: that baseline is left out");
    await compare(
      `${ROWS.toLocaleString("en")} ${shape.name}, PostgreSQL ${version}, fsync on`,
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
      { rounds: 3, unit: "changes/s", server: serverClock(Number(postmaster?.pid)), client: clientClock },
    );
    await Promise.all([sql.end(), log.end()]);
  } finally {
    await server.remove();
    await rm(file, { force: true });
  }
}
