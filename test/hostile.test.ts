import { expect, test } from "vitest";
import * as api from "../src/install/mod.ts";
import { onEachDatabase, onEachServer } from "./support/databases.ts";
import { BEMI, createSlot, install, runWorker, SCHEMA as schema, track } from "./support/installation.ts";
import { seen, story } from "./support/todos.ts";

// What somebody who may use the database, but not Bemi's schema, can try.
onEachServer("an application that tries to pass for another", (open) => {
  test("in a polled table neither reads the seal nor forges who it is", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    await createSlot(db);
    await port.execute(
      "create table jobs (id int primary key, done boolean); insert into jobs values (1), (2)",
    );
    await track(db, "jobs", { capture: "wal", polled: true });
    await api.seal(db, { schema });
    const [row] = await port.query<{ secret: string; oid: string }>(
      `select secret, 'jobs'::regclass::oid::text as oid from ${BEMI}.seal`,
    );
    await port.execute(api.rolesSql({ schema }));
    try {
      await port.execute("alter role bemi_application login");
      const app = database.connect({ username: "bemi_application", max: 1 });
      await app.begin(async (tx) => {
        // Held back, as no row matches.
        await tx`update jobs set done = true where id = 99`;
        const [held] = await tx`select current_setting('bemi.held', true) as text`;
        expect(held?.text).toContain("update jobs");
        expect(held?.text).not.toContain(row?.secret);
      });
      const forged = [
        "jobs",
        "jobs",
        "UPDATE",
        "1",
        "postgres",
        "postgres",
        "1",
        "",
        "",
        '{"user_id": 1}',
        "",
        "",
      ]
        .map((field) => field === "jobs" ? row?.oid ?? "" : field)
        .map((field) => `${field.length}:${field}`).join("");
      const setting = JSON.stringify({ [`${row?.oid}UPDATE`]: `1${forged}` });
      // In the middle of the statement, after its own message was held back.
      await app`update jobs set done = true where id = 1 and set_config('bemi.held', ${setting}, true) <> ''`;
      // Nor does what is no JSON fail the write.
      await app`set bemi.held = 'garbage'`;
      await app`update jobs set done = true where id = 2`;
      await runWorker({ source: database.url, once: true }).finished;
      expect(
        (await seen(port)).map((
          { key, context },
        ) => [key, (context.db as { user: string }).user, context.user_id]),
      )
        .toEqual([["1", "bemi_application", undefined], ["2", "bemi_application", undefined]]);
    } finally {
      await port.execute(`drop owned by bemi_application, bemi_reader, bemi_worker;
        drop role bemi_application, bemi_reader, bemi_worker`);
    }
  });

  test("makes temporary tables that nobody looks at, and tables of its own that are tracked", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    await port.execute(`update ${BEMI}.settings set track_all = true;
      set bemi.reconciling = 'on'; create table unseen (id int primary key); set bemi.reconciling = ''`);
    const tracked = async (): Promise<string[]> =>
      (await port.query<{ name: string }>(`select name from ${BEMI}.tracked_tables order by 1`)).map((row) =>
        row.name
      );
    await port.execute("create role bemi_somebody login; grant create on schema public to bemi_somebody");
    try {
      const app = database.connect({ username: "bemi_somebody", max: 1 });
      await app.unsafe("create temp table passing (id int); alter table passing add n int");
      expect(await tracked()).toEqual([]);
      await app`create table mine (id int primary key)`;
      expect(await tracked()).toEqual(["mine", "unseen"]);
      await app`insert into mine values (1)`;
      await app.unsafe("alter table mine add n int; drop table mine");
      expect(await story(port)).toEqual(["CREATE mine 1"]);
    } finally {
      await port.execute("drop owned by bemi_somebody; drop role bemi_somebody");
    }
  });
});

onEachDatabase("two installations that track every table", (open) => {
  test("leave each other's log alone", async () => {
    await using database = await open();
    const { db, port } = database;
    await port.execute("create table todos (id int primary key)");
    for (const name of ["first", "second"]) {
      await api.install(db, { schema: name });
      await api.trackAll(db, { schema: name });
    }
    // Tables that come later bring the event triggers of both.
    await port.execute(
      "create table lists (id int primary key); insert into todos values (1); insert into lists values (1)",
    );
    for (const name of ["first", "second"]) {
      const rows = await port.query<{ said: string }>(
        `select operation || ' ' || "table" as said from "${name}".changes order by 1`,
      );
      expect(rows.map(({ said }) => said)).toEqual(["CREATE lists", "CREATE todos"]);
    }
  });
});
