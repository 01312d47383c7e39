import { withContext } from "@bemi/core";
import { changes } from "@bemi/core/history";
import { track } from "@bemi/core/install";
import { withBemi } from "@bemi/core/postgres";
import { createSlot, poll } from "@bemi/core/worker";
import { deepStrictEqual } from "node:assert/strict";
import type { AddTest, Runtime } from "./add-tests.ts";
import { connect } from "./capture.ts";

/** Tracks `notes` from the Write-Ahead Log, for all tests after it. */
export function pollTests(test: AddTest, { url, schema }: Runtime): void {
  const options = () => ({ source: url, schema, signal: AbortSignal.timeout(30_000) });

  test("a bounded poll brings what was written, with its context, into the log", async () => {
    await using bare = connect(url);
    const { sql } = bare;
    await sql`create table notes (id int primary key, text text)`;
    await createSlot(sql, { schema });
    await track(sql, "notes", { schema, capture: "wal" });
    const db = withBemi(sql);
    await withContext({ user_id: 1 }, () => db`insert into notes values (1, 'Sleep')`);
    await withContext({ user_id: 2 }, () => db`update notes set text = 'Eat'`);
    deepStrictEqual(await poll(options()), { written: 2, setAside: 0, isCaughtUp: true, isBusy: false });
    const told = (await changes(sql, { schema, table: "notes" })).map(({ operation, context }) =>
      `${operation} ${context.user_id}`
    );
    deepStrictEqual(told, ["CREATE 1", "UPDATE 2"]);
  });

  test("a poll ends after its limit, however much there is, and the next one goes on", async () => {
    await using bare = connect(url);
    const { sql } = bare;
    for (let from = 1; from <= 3; from++) {
      // More than one fetch of a cursor, and more than one chunk of a COPY.
      await sql`insert into notes select n, repeat('x', 200) from generate_series(${from * 2000}::int, ${
        from * 2000 + 1499
      }::int) n`;
    }
    const { written, isCaughtUp } = await poll({ ...options(), limit: 1 });
    deepStrictEqual([written, isCaughtUp], [1500, false]);
    deepStrictEqual(await poll(options()), { written: 3000, setAside: 0, isCaughtUp: true, isBusy: false });
    deepStrictEqual((await changes(sql, { schema, table: "notes" })).length, 4502);
  });
}
