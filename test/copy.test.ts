import { expect, test } from "vitest";
import { copyIn, copyOut, inTransaction, type WorkerSql } from "../src/worker/sql.ts";
import { onEachServer } from "./support/databases.ts";

onEachServer("a COPY into the log", (open) => {
  test("is given up when something else fails, with that error, and the connection goes on", async () => {
    await using database = await open();
    const sql = database.connect({ max: 1, fetch_types: false }) as unknown as WorkerSql;
    await sql.unsafe("create table todos (id int)");
    await expect(inTransaction(sql, async (tx) => {
      const copy = await copyIn(tx, "copy todos from stdin");
      await copy.write("1\n");
      copy.abort();
      throw new Error("the stream is gone");
    })).rejects.toThrow("the stream is gone");
    expect(await sql.unsafe("select count(*)::int as count from todos")).toMatchObject([{ count: 0 }]);
  });

  test("that a trigger refuses at once fails with the server's error, and does not end the process", async () => {
    await using database = await open();
    const sql = database.connect({ max: 1, fetch_types: false }) as unknown as WorkerSql;
    await sql.unsafe(`create table todos (id int);
      create function full_disk() returns trigger language plpgsql as $$ begin raise disk_full; end $$;
      create trigger full_disk before insert on todos for each statement execute function full_disk()`);
    for (let i = 0; i < 20; i++) {
      await expect(inTransaction(sql, async (tx) => {
        const copy = await copyIn(tx, "copy todos from stdin");
        try {
          await copy.write("1\n");
          await copy.end();
        } catch (error) {
          copy.abort();
          throw error;
        }
      })).rejects.toMatchObject({ code: "53100" });
    }
    expect(await sql.unsafe("select count(*)::int as count from todos")).toMatchObject([{ count: 0 }]);
  });
});

onEachServer("a COPY out of the database", (open) => {
  test("may be left early wherever its last rows are, and the connection goes on", async () => {
    await using database = await open();
    const sql = database.connect({ max: 1, fetch_types: false, prepare: false }) as unknown as WorkerSql;
    for (let rows = 1; rows <= 40; rows++) {
      for (const leavesEarly of [true, false]) {
        await inTransaction(sql, async (tx) => {
          const copy = copyOut(
            tx,
            `copy (select repeat('x', 9000) from generate_series(1, ${rows})) to stdout`,
          );
          for await (const chunk of copy) {
            expect(chunk.length % 9001).toBe(0);
            if (leavesEarly) break;
          }
          expect(await tx.unsafe("select 1 as one")).toMatchObject([{ one: 1 }]);
        });
      }
    }
  });

  test("that its reader gives up with an error ends with that error, and the connection goes on", async () => {
    await using database = await open();
    const sql = database.connect({ max: 1, fetch_types: false, prepare: false }) as unknown as WorkerSql;
    for (const rows of [1, 5, 20, 2000]) {
      await expect(inTransaction(sql, async (tx) => {
        const copy = copyOut(
          tx,
          `copy (select repeat('x', 9000) from generate_series(1, ${rows})) to stdout`,
        );
        for await (const _ of copy) throw new Error("the log is full");
      })).rejects.toThrow("the log is full");
      expect(await sql.unsafe("select 1 as one")).toMatchObject([{ one: 1 }]);
    }
  });
});
