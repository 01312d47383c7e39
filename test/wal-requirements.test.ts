import type { PGlite } from "@electric-sql/pglite";
import postgres from "postgres";
import { expect, test } from "vitest";
import { main } from "../src/cli/main.ts";
import { doctor, trackAll } from "../src/install/mod.ts";
import { onEachServer, onPglite } from "./support/databases.ts";
import {
  BEMI,
  createSlot,
  install,
  OWN_NAME,
  runWorker,
  SCHEMA,
  track,
  tracking,
} from "./support/installation.ts";
import { startServer } from "./support/servers.ts";
import { seen, TODOS } from "./support/todos.ts";

onEachServer("what capture from the WAL needs", (open) => {
  test("what is missing is named with its remedy, and nothing is lost in silence", async () => {
    await using database = await open();
    const catchUp = (): Promise<void> => runWorker({ source: database.url, once: true }).finished;
    await expect(catchUp()).rejects.toMatchObject({ code: "schema_missing" });
    await install(database.db);
    await expect(catchUp()).rejects.toMatchObject({
      code: "wal_unavailable",
      hint: expect.stringMatching(/init/),
    });
    const { slot } = await createSlot(database.db);
    expect(await createSlot(database.db)).toEqual({ slot, created: false });
    await expect(createSlot(database.db, { slot: "No Slot" })).rejects.toMatchObject({ code: "usage" });
    await database.port.execute(TODOS);
    await database.port.execute("create unlogged table fleeting (id int primary key)");
    await expect(track(database.db, "fleeting", { capture: "wal" })).rejects.toMatchObject({
      code: "not_trackable",
    });
    await track(database.db, "todos", { capture: "wal" });
    await database.port.execute("insert into todos (task) values ('a')");
    await catchUp();

    await database.port.execute(`insert into todos (task) values ('b'); drop publication ${OWN_NAME}`);
    await expect(catchUp()).rejects.toMatchObject({
      message: expect.stringMatching(/no publication/),
    });
    await database.port.query("select pg_drop_replication_slot($1::text)", [slot]);
    await database.port.query(`select ${BEMI}.reconcile()`);
    await expect(catchUp()).rejects.toMatchObject({
      code: "gap",
      hint: expect.stringMatching(/bemi worker --recreate-slot/),
    });
    await createSlot(database.db);
    await database.port.execute("insert into todos (task) values ('c')");
    await catchUp();
    expect((await seen(database.port)).map((c) => c.after.task)).toEqual(["a", "c"]);
    expect(await database.port.query(`select reason from ${BEMI}.gaps`)).toHaveLength(1);
  });
});

onEachServer("a table without a slot", (open) => {
  test("is not captured from the WAL, and stays with its triggers", async () => {
    await using database = await open();
    const { db, port } = database;
    await tracking(database, TODOS, "todos");
    await expect(runWorker({ source: database.url, once: true }).finished).rejects.toMatchObject({
      code: "wal_unavailable",
      message: "Nothing is captured from the Write-Ahead Log here (tables by triggers: 1)",
      hint: expect.not.stringMatching(/lost/) as string,
    });
    const refusal = {
      code: "wal_unavailable",
      hint: expect.stringMatching(/bemi init --capture wal/) as string,
    };
    await expect(track(db, "todos", { capture: "wal" })).rejects.toMatchObject(refusal);
    await expect(trackAll(db, { schema: SCHEMA, capture: "wal" })).rejects.toMatchObject(refusal);
    await port.execute("insert into todos (task) values ('a')");
    await createSlot(db);
    await track(db, "todos", { capture: "wal" });
    await port.execute("insert into todos (task) values ('b')");
    await runWorker({ source: database.url, once: true }).finished;
    expect((await seen(port)).map((c) => c.after.task)).toEqual(["a", "b"]);
  });

  test("that was lost is made anew by init, which says what is to be done then", async () => {
    await using database = await open();
    const { db, port } = database;
    const init = async (): Promise<string> => {
      const said: string[] = [];
      const code = await main(["init", "--all", "--capture", "wal", "--schema", SCHEMA], {
        env: { DATABASE_URL: database.url },
        out: () => {},
        err: (text) => void said.push(text),
        columns: undefined,
        isColoured: false,
        progress: undefined,
        onTerminate: () => {},
      });
      expect(code, said.join("")).toBe(0);
      return said.join("");
    };
    await port.execute(TODOS);
    expect(await init()).not.toContain("lost");
    await runWorker({ source: database.url, once: true }).finished;
    expect(await init()).not.toContain("lost");
    await port.query(`select pg_drop_replication_slot(${BEMI}.slot_name())`);
    await port.execute("insert into todos (task) values ('lost')");
    const slotMissing = (await doctor(db, { schema: SCHEMA })).find(({ name }) => name === "slot-missing");
    expect(slotMissing?.repair).toMatch(/^bemi worker --once --recreate-slot/);
    expect(await init()).toMatch(
      /without it: 2 tables\. What was written .* is lost\. Run: bemi worker --once, then bemi reconcile\n/,
    );
  });
});

onPglite("capture from the WAL on PGlite", (open) => {
  test("is refused before anything is poisoned", async () => {
    await using database = await open();
    await install(database.db);
    await expect(createSlot(database.db as PGlite)).rejects.toMatchObject({ code: "wal_unavailable" });
  });
});

onEachServer("a server without logical decoding", (_, version) => {
  test("wal_level and the number of slots are checked, each with its remedy", async () => {
    for (
      const [setting, remedy] of [["wal_level=replica", /wal_level/], [
        "max_replication_slots=0",
        /max_replication_slots/,
      ]] as const
    ) {
      const server = await startServer(version, ["fsync=off", setting]);
      try {
        const sql = postgres(server.url(), { max: 1, onnotice() {} });
        await install(sql);
        await expect(createSlot(sql)).rejects.toMatchObject({
          code: "wal_unavailable",
          hint: expect.stringMatching(remedy),
        });
        await sql.end();
      } finally {
        await server.remove();
      }
    }
  });
});
