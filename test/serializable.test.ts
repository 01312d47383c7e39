import { expect, test } from "vitest";
import { sqlstateOf } from "../src/database/sqlstate.ts";
import { BEMI, install, track } from "./support/installation.ts";
import { onEachServer } from "./support/databases.ts";

const TABLES = `
  create table notes (id int generated always as identity primary key, text text);
  create table lists (id int primary key, is_open boolean) partition by hash (id);
  create table lists_0 partition of lists for values with (modulus 2, remainder 0);
  create table lists_1 partition of lists for values with (modulus 2, remainder 1);
  create table todos (id int primary key, is_completed boolean);
  create function note() returns trigger language plpgsql as $$
    begin insert into notes (text) values (tg_op); return new; end $$;
  create trigger note before insert or update on todos for each row execute function note()`;

onEachServer("serializable transactions", (open) => {
  test("that overlap are captured or refused, by triggers, and never committed without their changes", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    await port.execute(TABLES);
    for (const table of ["notes", "lists", "todos"]) await track(db, table, { capture: "trigger" });
    const sql = database.connect({
      max: 1,
      connection: { default_transaction_isolation: "serializable" },
    });
    await sql.unsafe("insert into lists values (6, true), (1, false), (2, null)");
    await sql.unsafe("insert into todos values (5, null), (6, true), (1, false)");
    await sql.unsafe("update lists set id = id + 3 where id = 2");
    // Prepared, it can no longer be refused: who is in its way has to be.
    const name = `serializable ${process.pid} ${database.server}`;
    await sql.unsafe("begin");
    await sql.unsafe(
      "insert into todos values (5) on conflict (id) do update set is_completed = true",
    );
    await sql.unsafe("insert into lists values (11), (12)");
    await sql.unsafe(`prepare transaction '${name}'`);
    const outcome = await sql.unsafe("update lists set is_open = false").then(() => "ok", sqlstateOf);
    await sql.unsafe(`commit prepared '${name}'`);
    const changes = await port.query<{ count: number }>(
      `select count(*)::int as count from ${BEMI}.changes where "table" = 'lists' and after @> '{"is_open": false}'`,
    );
    const rows = await port.query<{ count: number }>(
      "select count(*)::int as count from lists where not is_open",
    );
    expect(outcome).toBe("40001");
    expect(changes).toEqual(rows);
  });
});
