import { expect, test } from "vitest";
import { copyIn, inTransaction, type WorkerSql } from "../src/worker/sql.ts";
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
