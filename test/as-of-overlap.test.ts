import type postgres from "postgres";
import { expect, test } from "vitest";
import { asOf, changes } from "../src/history/mod.ts";
import { onEachServer } from "./support/databases.ts";
import { install, SCHEMA as schema, track } from "./support/installation.ts";

/** The rows at a moment: those of the table, which each of the keys alone has to agree with. */
async function told(
  db: postgres.Sql,
  moment: { before: string } | { after: string },
  keys: readonly number[],
): Promise<string> {
  const text = (rows: readonly { id: number; by: string }[]): string =>
    rows.map(({ id, by }) => `${id}${by}`).sort().join(" ");
  const all = text(await asOf<{ id: number; by: string }>(db, "todos", moment, { schema }));
  const each = await Promise.all(
    keys.map((key) => asOf<{ id: number; by: string }>(db, "todos", moment, { key, schema })),
  );
  expect(text(each.flat())).toBe(all);
  return all;
}

onEachServer("transactions that overlap, captured by triggers", (open) => {
  test("before and after each of them a table is as a serial run would have had it, none is seen by half", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    await port.execute("create table todos (id int primary key, by text)");
    await track(db, "todos");
    await db`insert into todos values (0, 'first')`;
    await db`delete from todos`;
    const begin = async (): Promise<postgres.ReservedSql> => {
      const session = await database.connect({ max: 1 }).reserve();
      await session`begin`;
      return session;
    };
    const [a, b, c] = [await begin(), await begin(), await begin()] as const;
    await a`insert into todos values (1, 'a')`;
    await b`insert into todos values (2, 'b')`;
    await c`insert into todos values (3, 'c')`;
    await b`insert into todos values (4, 'b')`;
    await a`insert into todos values (5, 'a')`;
    // In another order than they wrote; c never commits.
    await a`commit`;
    await c`rollback`;
    await b`commit`;
    // And one that depends on both.
    await db`update todos set by = 'd' where id in (1, 2)`;

    const all = await changes<{ by: string }>(db, { schema });
    const ids = (name: string): string[] => all.filter(({ after }) => after.by === name).map(({ id }) => id);
    const rows = async (moment: { before: string } | { after: string }): Promise<string> =>
      await told(db, moment, [1, 2, 3, 4, 5]);
    // By whichever of its changes a transaction is named.
    for (const id of ids("b")) {
      expect(await rows({ before: id })).toBe("");
      expect(await rows({ after: id })).toBe("2b 4b");
    }
    for (const id of ids("a")) {
      expect(await rows({ before: id })).toBe("2b 4b");
      expect(await rows({ after: id })).toBe("1a 2b 4b 5a");
    }
    for (const id of ids("d")) {
      expect(await rows({ before: id })).toBe("1a 2b 4b 5a");
      expect(await rows({ after: id })).toBe("1d 2d 4b 5a");
    }
    expect(ids("c")).toEqual([]);
  });

  test("a transaction that has not committed is in no past, however early it wrote", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    await port.execute("create table todos (id int primary key, by text)");
    await track(db, "todos");
    await port.execute("insert into todos values (1, 'first'), (2, 'first')");
    const session = await database.connect({ max: 1 }).reserve();
    await session`begin`;
    await session`update todos set by = 'open' where id = 1`;
    await session`insert into todos values (3, 'open')`;
    await port.execute("update todos set by = 'later' where id = 2");
    const [later] = await changes<{ by: string }>(db, { schema, after: { by: "later" } });
    const rows = (): Promise<string> => told(db, { after: later?.id ?? "" }, [1, 2, 3, 4]);
    expect(await rows()).toBe("1first 2later");
    await session`insert into todos values (4, 'open')`;
    await session`commit`;
    // It ended after that moment, so all of it comes after.
    expect(await rows()).toBe("1first 2later");
  });

  test("nor is a TRUNCATE, or a key that was left, where its transaction went on", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    await port.execute(
      "create table todos (id int primary key, by text); create table others (id int primary key)",
    );
    await track(db, "todos");
    await track(db, "others");
    await port.execute("insert into todos values (1, 'first'), (2, 'first')");
    const session = await database.connect({ max: 1 }).reserve();
    for (const statement of ["update todos set id = 3, by = 'open' where id = 1", "truncate todos"]) {
      await session`begin`;
      await session.unsafe(statement);
      await port.execute("insert into others values (1)");
      const now = (await changes(db, { schema, table: "others" })).at(-1);
      await session.unsafe("insert into todos values (4, 'open')");
      await session`commit`;
      expect([statement, await told(db, { after: now?.id ?? "" }, [1, 2, 3, 4])]).toEqual([
        statement,
        "1first 2first",
      ]);
      await port.execute(
        "delete from others; delete from todos; insert into todos values (1, 'first'), (2, 'first')",
      );
    }
  });
});
