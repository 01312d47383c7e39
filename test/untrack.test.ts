import { expect, test } from "vitest";
import { main } from "../src/cli/main.ts";
import { doctor, planTracking, status, trackAll } from "../src/install/mod.ts";
import { statusScreen } from "../src/cli/status-screen.ts";
import { onEachDatabase, onEachServer, type TestDatabase } from "./support/databases.ts";
import { dumpAndRestore, dumpRefusal } from "./support/dump.ts";
import { BEMI, install, SCHEMA, track, uninstall, untrack } from "./support/installation.ts";

const schema = SCHEMA;

async function tracked({ port }: TestDatabase): Promise<string> {
  const [row] = await port.query<{ names: string }>(
    `select coalesce(string_agg(relation::text, ' ' order by relation::text), '') as names from ${BEMI}.tracked_tables`,
  );
  return row?.names ?? "";
}

async function ddl({ port }: TestDatabase, sql: string): Promise<void> {
  await port.execute(sql);
  // For where no event trigger may be.
  await port.query(`select ${BEMI}.reconcile()`);
}

const findings = async ({ db }: TestDatabase): Promise<string[]> =>
  (await doctor(db, { schema })).filter(({ name }) => name.includes("untracked")).map(({ object }) => object);

onEachDatabase("a table that is untracked while all are tracked", (open) => {
  test("stays so through DDL, a rename and trackAll, until it is tracked by name", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    await port.execute("create table todos (id int primary key); create table people (id int primary key)");
    await trackAll(db, { schema });
    await untrack(db, "people");
    await ddl(database, "create table lists (id int primary key)");
    await ddl(database, "alter table people add column name text");
    await ddl(
      database,
      "alter table people rename to persons; create schema app; alter table persons set schema app",
    );
    expect(await tracked(database)).toBe("lists todos");
    expect((await planTracking(db, undefined, { schema })).map(({ table }) => table)).toEqual([
      "public.lists",
      "public.todos",
    ]);
    await trackAll(db, { schema });
    expect(await tracked(database)).toBe("lists todos");
    expect(await findings(database)).toEqual([]);
    const found = await status(db, { schema });
    expect(found.untracked).toEqual(["app.persons"]);
    expect(statusScreen(found, schema, { isColoured: false } as Parameters<typeof statusScreen>[2]))
      .toMatch(/untracked +until bemi track names them:\n +app\.persons\n/);

    await track(db, "app.persons");
    await ddl(database, "alter table app.persons add column age int");
    expect(await tracked(database)).toBe("app.persons lists todos");
    expect((await status(db, { schema })).untracked).toEqual([]);
  });

  test("was never tracked before, or is forgotten once it is dropped", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    await port.execute("create table people (id int primary key); create table todos (id int primary key)");
    await untrack(db, "people");
    await trackAll(db, { schema });
    expect(await tracked(database)).toBe("todos");
    await ddl(database, "drop table people; create table people (id int primary key)");
    expect(await tracked(database)).toBe("people todos");
    await uninstall(db);
    expect(await port.query("select from pg_namespace where nspname = $1", [schema])).toEqual([]);
  });

  test("keeps its partitions out, those that it gets and those that leave it, until they join a tracked one", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    await port.execute(`
      create table days (day int primary key) partition by range (day);
      create table days_1 partition of days for values from (1) to (2);
      create table weeks (day int primary key) partition by range (day)`);
    await trackAll(db, { schema });
    await untrack(db, "days_1");
    expect(await tracked(database)).toBe("weeks");
    await ddl(database, "create table days_2 partition of days for values from (2) to (3)");
    await ddl(database, "alter table days detach partition days_1; alter table days detach partition days_2");
    expect(await tracked(database)).toBe("weeks");
    expect(await findings(database)).toEqual([]);
    expect((await status(db, { schema })).untracked).toEqual([
      "public.days",
      "public.days_1",
      "public.days_2",
    ]);
    await ddl(database, "alter table weeks attach partition days_1 for values from (1) to (2)");
    expect(await tracked(database)).toBe("days_1 weeks");
    await port.execute("alter table days attach partition days_2 for values from (2) to (3)");
    await track(db, "days");
    expect(await tracked(database)).toBe("days days_1 days_2 weeks");
    expect((await status(db, { schema })).untracked).toEqual([]);
  });

  test("keeps its children out, and is kept out itself as a child", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    await port.execute(`
      create table people (id int primary key); create table staff (pay int) inherits (people);
      create table lists (id int primary key); create table secret (code text) inherits (lists)`);
    await trackAll(db, { schema });
    await untrack(db, "people");
    await untrack(db, "secret");
    await ddl(
      database,
      "create table guests (since int) inherits (people); create table more (n int) inherits (secret)",
    );
    await trackAll(db, { schema });
    await track(db, "lists", { strict: true });
    expect(await tracked(database)).toBe("lists");
    expect(await findings(database)).toEqual([]);
    expect((await status(db, { schema })).untracked).toEqual(["public.people", "public.secret"]);
    await track(db, "secret");
    await track(db, "people");
    await ddl(database, "create table last (id int primary key)");
    expect(await tracked(database)).toBe("guests last lists more people secret staff");
  });
});

onEachServer("an untracked table", (open, server) => {
  const refusal = dumpRefusal(server);
  test.skipIf(refusal !== undefined)("stays so in a dump that is restored", async () => {
    await using former = await open();
    await using next = await open();
    await install(former.db);
    await former.port.execute(
      "create table people (id int primary key); create table todos (id int primary key)",
    );
    await trackAll(former.db, { schema });
    await untrack(former.db, "people");
    dumpAndRestore(former.url, next.url);
    await ddl(next, "create table lists (id int primary key)");
    expect(await tracked(next)).toBe("lists todos");
    expect((await status(next.db, { schema })).untracked).toEqual(["public.people"]);
  });

  test("is left out by init --all, which says so, and not by init with its name", async () => {
    await using database = await open();
    await database.port.execute(
      "create table people (id int primary key); create table todos (id int primary key)",
    );
    const bemi = async (...args: string[]): Promise<string> => {
      const said: string[] = [];
      const status = await main([...args, "--schema", schema], {
        env: { DATABASE_URL: database.url },
        out: (text) => void said.push(text),
        err: (text) => void said.push(text),
        columns: undefined,
        isColoured: false,
        progress: undefined,
        onTerminate: () => {},
      });
      expect(status, said.join("")).toBe(0);
      return said.join("");
    };
    await bemi("init", "--all");
    await bemi("untrack", "people");
    expect(await bemi("init", "--all")).toContain("Left out, as untracked before: public.people. ");
    expect(await tracked(database)).toBe("todos");
    expect(await bemi("init", "people")).toContain(
      "All tables are tracked since bemi init --all, 1 beside these: see bemi status\n",
    );
    expect(await tracked(database)).toBe("people todos");
  });
});
