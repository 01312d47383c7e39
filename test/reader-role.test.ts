import pg from "pg";
import { expect, test } from "vitest";
import { asOf, changes, history } from "../src/history/mod.ts";
import { rolesSql } from "../src/install/mod.ts";
import { onEachServer } from "./support/databases.ts";
import { BEMI, createSlot, install, runWorker, SCHEMA as schema, track } from "./support/installation.ts";
import { clock } from "./support/moments.ts";

onEachServer("the past, read as bemi_reader", (open) => {
  test.each(["trigger", "wal"] as const)(
    "by %s: with SELECT on the table all of it; without, the log alone, and a refusal that names the table",
    async (capture) => {
      await using database = await open();
      const { db, port, url } = database;
      await install(db);
      if (capture === "wal") await createSlot(db);
      await port.execute(
        "create table todos (id int primary key, task text); insert into todos values (1, 'a')",
      );
      // Rows that were there, so that by triggers the table itself has to be read.
      await track(db, "todos", { capture });
      const time = await clock(port);
      await port.execute("update todos set task = 'b'; insert into todos values (2, 'c')");
      if (capture === "wal") await runWorker({ source: url, once: true }).finished;
      const names = `past_${capture}_${process.pid}_${database.server}`;
      const reader = `${names}_reader`;
      // Roles are the cluster's, and other tests make them too.
      await port.execute(rolesSql({ schema }).replaceAll(/bemi_(application|reader|worker)/g, `${names}_$1`));
      await port.execute(`alter role ${reader} login; create role ${names}_nobody login`);
      const sql = database.connect({ username: reader, max: 1 });
      const pool = new pg.Pool({ connectionString: url.replace("postgres@", `${reader}@`), max: 1 });
      const past = capture === "wal" ? "clock_timestamp()" : `'${time}'`;
      const then = capture === "wal" ? undefined : [{ id: 1, task: "a" }];
      try {
        for (const client of [sql, pool]) {
          expect((await changes(client, { schema })).map(({ operation }) => operation)).toEqual([
            "UPDATE",
            "CREATE",
          ]);
          expect(await history(client, "todos", "1", { schema })).toMatchObject([{ after: { task: "b" } }]);
        }
        expect(await sql.unsafe(`select operation from ${BEMI}.history('todos', '2')`)).toEqual([
          { operation: "CREATE" },
        ]);
        if (then) {
          const refusal = { code: "42501", message: "permission denied for table todos" };
          await expect(sql.unsafe(`select * from ${BEMI}.as_of(null::todos, ${past})`)).rejects.toMatchObject(
            refusal,
          );
          for (const client of [sql, pool]) {
            await expect(asOf(client, "todos", time, { schema })).rejects.toMatchObject(refusal);
          }
          await expect(asOf(sql, time, (past) => past`select * from todos`, { schema })).rejects
            .toMatchObject(refusal);
        }
        await port.execute(`grant select on todos to ${reader}`);
        if (then) {
          expect(await sql.unsafe(`select * from ${BEMI}.as_of(null::todos, ${past})`)).toEqual(then);
          for (const client of [sql, pool]) {
            expect(await asOf(client, "todos", time, { schema })).toEqual(then);
          }
          const [update] = await changes(sql, { schema, operation: "UPDATE" });
          for (const one of [{}, { key: "1" }]) {
            expect(await asOf(sql, "todos", { before: update?.id ?? "" }, { schema, ...one })).toEqual(then);
          }
          expect(await asOf(sql, time, (past) => past`select * from todos`, { schema })).toEqual(then);
          expect(
            await asOf(pool, time, async (past) => (await past.query("select * from todos")).rows, {
              schema,
            }),
          )
            .toEqual(then);
        } else {
          // What the log does not know is as unknown to the reader.
          for (const client of [sql, pool]) {
            await expect(asOf(client, "todos", time, { schema, wait: false })).rejects.toMatchObject({
              code: "history_unknown",
              hint: expect.stringContaining("--baseline"),
            });
          }
        }
        const nobody = database.connect({ username: `${names}_nobody`, max: 1 });
        for (
          const statement of [
            `select * from ${BEMI}.as_of(null::todos, ${past})`,
            `select * from ${BEMI}.history('todos', '1')`,
            `select * from ${BEMI}.changes`,
          ]
        ) {
          await expect(nobody.unsafe(statement)).rejects.toMatchObject({
            code: "42501",
            message: `permission denied for schema ${schema}`,
          });
        }
      } finally {
        await pool.end();
        await port.execute(`drop owned by ${names}_application, ${reader}, ${names}_worker;
          drop role ${names}_application, ${reader}, ${names}_worker, ${names}_nobody`);
      }
    },
  );
});
