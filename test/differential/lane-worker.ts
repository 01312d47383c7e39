import type postgres from "postgres";
import { createSlot, runWorker, type Worker } from "../../src/worker/mod.ts";

/** What brings a database's WAL into its log. */
export interface LaneWorker extends AsyncDisposable {
  /** Waits until all that was committed is in the log. */
  caughtUp(): Promise<void>;
}

/** Polls when it is asked to, or streams all the time. */
export async function followWal(
  { inspector, url, mode }: { inspector: postgres.Sql; url: string; mode: "poll" | "stream" },
): Promise<LaneWorker> {
  await createSlot(inspector);
  const worker = mode === "stream" ? runWorker({ source: url, mode }) : undefined;
  let marker = 0;
  return {
    caughtUp: () =>
      worker ? reached(worker, inspector, ++marker) : runWorker({ source: url, mode, once: true }).finished,
    [Symbol.asyncDispose]: async () => {
      await worker?.[Symbol.asyncDispose]();
      await inspector.unsafe(
        "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = current_database() and not active",
      ).catch(() => {});
    },
  };
}

async function reached(worker: Worker, inspector: postgres.Sql, marker: number): Promise<void> {
  let failure: unknown;
  worker.finished.then(
    () => failure = new Error("The worker has ended"),
    (error: unknown) => failure = error,
  );
  await inspector`insert into public.markers values (${marker})`;
  for (;;) {
    const [there] = await inspector`
      select from bemi.changes where "table" = 'markers' and primary_key = ${String(marker)}`;
    if (there) return;
    if (failure) throw failure;
    await new Promise((done) => setTimeout(done, 10));
  }
}
