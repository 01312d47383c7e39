import { withContext } from "@bemi/core";
import { changes } from "@bemi/core/history";
import { withBemi } from "@bemi/core/postgres";
import { runWorker, type WorkerEvent } from "@bemi/core/worker";
import { deepStrictEqual } from "node:assert/strict";
import type { AddTest, Runtime } from "./add-tests.ts";
import { connect } from "./capture.ts";

/** The worker over a replication connection, on the slot and the table that the polling ones made. */
export function streamTests(test: AddTest, { url, schema }: Runtime): void {
  test("a worker streams, goes on when its connection is cut, and ends when it is told to", async () => {
    await using bare = connect(url);
    const { sql } = bare;
    const db = withBemi(sql);
    const [last] = await changes(sql, { schema, limit: 1 });
    const read = () => changes<{ text: string }>(sql, { schema, page: { after: last?.cursor } });
    const events: WorkerEvent[] = [];
    const worker = runWorker({ source: url, schema, mode: "stream", log: (event) => events.push(event) });
    const isStreaming = (times: number) => () =>
      events.filter((event) => event.kind === "reading" && event.mode === "stream").length >= times;

    await until(isStreaming(1), worker.finished);
    await withContext({ user_id: 1 }, () => db`insert into notes values (1001, 'Sleep')`);
    await until(async () => (await read()).length === 1, worker.finished);

    await sql`select pg_terminate_backend(active_pid) from pg_replication_slots
      where database = current_database() and active_pid is not null`;
    await withContext({ user_id: 2 }, () => db`update notes set text = 'Eat' where id = 1001`);
    await until(isStreaming(2), worker.finished);
    await until(async () => (await read()).length === 2, worker.finished);

    // More than the socket holds at once.
    await withContext(
      { user_id: 3 },
      () => db`insert into notes select n, repeat('y', 1000) from generate_series(10000, 14999) n`,
    );
    await until(async () => (await read()).length === 5002, worker.finished);
    await worker.stop();

    deepStrictEqual(events.some(({ kind }) => kind === "retry"), true);
    deepStrictEqual(events.at(-1), { kind: "stopped", written: 5002 });
    const told = (await read()).map(({ operation, context }) => `${operation} ${context.user_id}`);
    deepStrictEqual(told.slice(0, 2), ["CREATE 1", "UPDATE 2"]);
    deepStrictEqual(new Set(told.slice(2)), new Set(["CREATE 3"]));
  });
}

/** Waits for a condition for as long as the worker runs, at most half a minute. */
async function until(isMet: () => boolean | Promise<boolean>, finished: Promise<void>): Promise<void> {
  let ended: unknown;
  finished.then(() => ended = new Error("The worker has ended"), (error) => ended = error);
  const deadline = Date.now() + 30_000;
  while (!await isMet()) {
    if (ended) throw ended;
    if (Date.now() > deadline) throw new Error(`Waited in vain for ${isMet}`);
    await new Promise((done) => setTimeout(done, 20));
  }
}
