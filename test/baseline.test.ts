import { expect, test } from "vitest";
import { baseline } from "../src/install/mod.ts";
import type { Database } from "../src/database/port.ts";
import { onEachDatabase, onEachServer } from "./support/databases.ts";
import {
  BEMI,
  createSlot,
  install,
  runWorker,
  SCHEMA as schema,
  track,
  untrack,
} from "./support/installation.ts";
import { type Seen, seen } from "./support/todos.ts";

const TABLES = `
  create table todos (id int primary key, task text, secret text);
  insert into todos select n, 'task ' || n, 'secret' from generate_series(1, 25) n;
  create table "Odd ""name" ("a b" timestamptz, "B" text collate "C", v numeric, primary key ("B", "a b"));
  insert into "Odd ""name" select '2026-11-01 12:00:00.123456+00'::timestamptz + n * interval '1 hour', 'it''s ' || n % 3, n / 7.0
    from generate_series(1, 12) n;
  create table loose (line text);
  insert into loose values ('a'), ('a'), (null);
  create table days (at date, n int, primary key (at, n)) partition by range (at);
  create table days_1 partition of days for values from ('2026-01-01') to ('2026-02-01');
  create table days_2 partition of days for values from ('2026-02-01') to ('2026-03-01');
  insert into days select '2026-01-20'::date + n, n from generate_series(1, 20) n;
  create table parent (id int primary key);
  create table child (extra text, primary key (id)) inherits (parent);
  insert into parent values (1); insert into child values (2, 'own');
  create table papers (id int primary key, body json);
  insert into papers values (1, '{"ok": 1}'), (2, '"\\u0000"'), (3, '{"ok": 3}');`;

const NAMES = ["todos", '"Odd ""name"', "loose", "days", "parent", "child", "papers"];

const EXACT = (table: string): string =>
  `select json_agg(to_json(t) order by to_json(t)::text)::text as rows from only ${table} t`;

async function live(port: Database, table: string): Promise<unknown[]> {
  const [row] = await port.query<{ rows: string }>(EXACT(table).replace("only days", "days"));
  return JSON.parse(row?.rows ?? "[]") as unknown[];
}

const canonical = (row: object): string => JSON.stringify(Object.entries(row).sort());

onEachDatabase("a baseline", (open, server) => {
  test.each(server === "PGlite" ? (["trigger"] as const) : (["trigger", "wal"] as const))(
    "by %s records the rows that are there, once, in steps that can be interrupted",
    async (capture) => {
      await using database = await open();
      const { db, port } = database;
      await install(db);
      if (capture === "wal") await createSlot(db);
      await port.execute(TABLES);
      for (const table of NAMES) {
        await track(db, table, { capture, ...(table === "todos" ? { mask: ["secret"] } : {}) });
      }

      const stopping = new AbortController();
      const onProgress = (): void => stopping.abort();
      const options = { schema, chunk: 7 };
      expect(await baseline(db, "todos", { ...options, onProgress, signal: stopping.signal })).toBe(7);
      expect(await baseline(db, "todos", options)).toBe(18);
      expect(await baseline(db, "todos", options)).toBe(0);
      for (const table of NAMES) await baseline(db, table, options);
      if (capture === "wal") await runWorker({ source: database.url ?? "", once: true }).finished;

      const changes = await seen(port);
      expect(new Set(changes.map((change) => change.operation))).toEqual(new Set(["SNAPSHOT"]));
      for (const table of NAMES) {
        const name = table.replaceAll(/^"|"$/g, "").replaceAll('""', '"');
        const rows = changes.filter((change) => change.table === name).map((change) => change.after);
        const expected = (await live(port, table)).filter((row) =>
          table !== "papers" || (row as { id: number }).id !== 2
        )
          .map((row) => {
            const { secret: _, ...rest } = row as { secret?: string };
            return rest;
          });
        expect(rows.map(canonical).sort(), name).toEqual(expected.map(canonical).sort());
      }
      expect(changes.filter(({ table }) => table === "todos").map(({ key }) => Number(key))).toEqual(
        Array.from({ length: 25 }, (_, n) => n + 1),
      );
      expect(changes.find(({ table }) => table === 'Odd "name')?.key).toMatch(
        /^\["it's 0", "2026-11-01T15:00:00.123456/,
      );
      expect(changes.find(({ table }) => table === "loose")?.key).toBeNull();
      expect(changes[0]?.context).toMatchObject({ db: { user: "postgres" } });
      expect(
        await port.query(`select skipped_count::int as n from "${schema}".baselines where skipped_count > 0`),
      ).toEqual([{ n: 1 }]);

      // A table that was untracked has a gap in its history, and may get another.
      await untrack(db, "todos");
      await expect(baseline(db, "todos", { schema })).rejects.toMatchObject({ code: "not_trackable" });
      await expect(baseline(db, "days_1", { schema })).rejects.toMatchObject({ code: "not_trackable" });
      await track(db, "todos", { capture });
      expect(await baseline(db, "todos", { schema })).toBe(25);
    },
  );
});

/** What keys went through, each step following from the one before. */
function expectChains(changes: readonly Seen[]): Map<string, Record<string, unknown>> {
  const rows = new Map<string, Record<string, unknown>>();
  for (const { operation, key, former, before, after } of changes) {
    const known = rows.get(former ?? key ?? "");
    const claim = operation === "SNAPSHOT" ? after : before;
    if (known) expect(claim, `${operation} ${key}`).toEqual(operation === "CREATE" ? {} : known);
    rows.delete(former ?? key ?? "");
    if (operation !== "DELETE") rows.set(key ?? "", after);
  }
  return rows;
}

onEachServer("a baseline beside writers", (open) => {
  test.each(["trigger", "wal"] as const)(
    "by %s stands where it belongs in each key's history",
    async (capture) => {
      await using database = await open();
      const { db, port } = database;
      await install(db);
      if (capture === "wal") await createSlot(db);
      await port.execute(`create table todos (id int primary key, n int not null default 0);
      insert into todos select n from generate_series(1, 2000) n`);
      await track(db, "todos", { capture });

      let isOver = false;
      const writer = async (who: number): Promise<void> => {
        const sql = database.connect({ max: 1 });
        for (let i = 0; !isOver; i++) {
          const id = 1 + (i * 37 + who * 11) % 2000;
          await sql.begin(async (tx) => {
            await tx`update todos set n = n + 1 where id = ${id}`;
            if (i % 3 === 0) await tx`delete from todos where id = ${id + 1}`;
            if (i % 5 === 0) {
              await tx`insert into todos values (${
                id + 1
              }, ${-i}) on conflict (id) do update set n = todos.n + 100`;
            }
            if (i % 7 === 0) {
              await tx`update todos set id = ${10_000 + who * 10_000 + i} where id = ${id + 2}`;
            }
            if (i % 11 === 0) throw new Error("changed my mind");
          }).catch((error: Error & { code?: string }) => {
            // Locks in another order than others: PostgreSQL takes it back.
            if (error.message !== "changed my mind" && error.code !== "40P01") throw error;
          });
        }
      };
      const writers = [1, 2, 3].map(writer);
      await new Promise((done) => setTimeout(done, 200));
      expect(await baseline(database.connect({ max: 1 }), "todos", { schema, chunk: 50 })).toBeGreaterThan(
        1000,
      );
      await new Promise((done) => setTimeout(done, 200));
      isOver = true;
      await Promise.all(writers);
      if (capture === "wal") await runWorker({ source: database.url, once: true }).finished;

      const rows = expectChains(await seen(port));
      const expected = await port.query<{ id: number; n: number }>("select id, n from todos");
      expect([...rows.values()].sort((a, b) => Number(a.id) - Number(b.id))).toEqual(
        [...expected].sort((a, b) => a.id - b.id),
      );
    },
  );
});

onEachDatabase("a baseline's keys and rows", (open) => {
  test("no setting of the session gets into them", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    await port.execute(`
      create table days (at timestamptz primary key, b bytea);
      insert into days select '2026-01-01 12:00+00'::timestamptz + n * interval '1 day', 'a' from generate_series(1, 5) n`);
    await track(db, "days");
    await port.transaction(async (tx) => {
      await tx.execute(
        "set local timezone = 'Europe/Berlin'; set local bytea_output = 'escape'; set local datestyle = 'German'",
      );
      for (let i = 0; i < 4; i++) await tx.query(`select ${BEMI}.baseline('days', 2)`);
    });
    expect((await seen(port)).map(({ key, after }) => [key, after.b])).toEqual(
      [2, 3, 4, 5, 6].map((day) => [`2026-01-0${day}T12:00:00+00:00`, "\\x61"]),
    );
    await port.execute("update days set b = 'b'");
    expect(await port.query(`select count(*)::int as n from ${BEMI}.as_of(null::days, clock_timestamp())`))
      .toEqual([
        { n: 5 },
      ]);
  });

  test("no cast and no check that a table's owner wrote is run for its keys", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    await port.execute(`
      create type kind as enum ('a', 'b', 'c');
      create function told(kind) returns text language plpgsql as 'begin raise exception ''a cast ran''; end';
      create cast (kind as text) with function told(kind);
      create function kind_of(text) returns kind language plpgsql as 'begin raise exception ''a cast ran''; end';
      create cast (text as kind) with function kind_of(text);
      create table kinds (id kind primary key); insert into kinds values ('a'), ('b'), ('c');
      create table ran (n int);
      create function noted(int) returns boolean language plpgsql as
        'begin insert into public.ran values ($1); return true; end';
      create domain positive as int check (noted(value));
      create table numbers (id positive primary key); insert into numbers values (1), (2), (3);
      create table lists (id positive[] primary key); insert into lists values ('{1}'), ('{2}');
      truncate ran`);
    for (const name of ["kinds", "numbers", "lists"]) await track(db, name);
    expect(await baseline(db, "kinds", { schema, chunk: 1 })).toBe(3);
    expect(await baseline(db, "numbers", { schema, chunk: 1 })).toBe(3);
    await expect(baseline(db, "lists", { schema, chunk: 1 })).rejects.toMatchObject({
      code: "not_trackable",
    });
    expect(await port.query(`select cardinality(${BEMI}.absent_keys('kinds', '{a,x}')) as n`)).toEqual([{
      n: 1,
    }]);
    expect(await port.query(`select cardinality(${BEMI}.absent_keys('kinds', '{a}')) as n`)).toEqual([{
      n: 0,
    }]);
    expect(await port.query(`select ${BEMI}.absent_keys('numbers', '{2,9}')::text as keys`)).toEqual([{
      keys: "{9}",
    }]);
    expect(await port.query("select count(*)::int as n from ran")).toEqual([{ n: 0 }]);
  });
});

onEachServer("a baseline from the WAL", (open) => {
  test("is over when its rows are committed, not before", async () => {
    await using database = await open();
    const { db, port, url } = database;
    await install(db);
    await createSlot(db);
    await port.execute("create table todos (id int primary key); insert into todos values (1), (2)");
    await track(db, "todos", { capture: "wal" });
    const finished = `select finished_at is not null as is_over from ${BEMI}.baselines`;
    const [one] = await db.begin(async (tx) => {
      await tx.unsafe(`select ${BEMI}.baseline('todos', 10)`);
      // Within one transaction it cannot be.
      await tx.unsafe(`select ${BEMI}.baseline('todos', 10)`);
      return await tx.unsafe("select clock_timestamp()::text as between");
    });
    expect(await port.query(finished)).toEqual([{ is_over: false }]);
    expect(await baseline(db, "todos", { schema })).toBe(0);
    expect(await port.query(finished)).toEqual([{ is_over: true }]);
    await runWorker({ source: url, once: true }).finished;
    expect(await port.query(`select id from ${BEMI}.as_of(null::todos, clock_timestamp()) order by id`))
      .toEqual([
        { id: 1 },
        { id: 2 },
      ]);
    // The rows were there all along, and the log can tell.
    expect(await port.query(`select id from ${BEMI}.as_of(null::todos, '${one?.between}') order by id`))
      .toEqual([
        { id: 1 },
        { id: 2 },
      ]);
  });
});
