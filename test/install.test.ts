import pg from "pg";
import { expect, test } from "vitest";
import { connect } from "../src/database/connect.ts";
import { install, SCHEMA_VERSION, status, track, trackAll, uninstall } from "../src/install/mod.ts";
import { onEachDatabase, onEachServer } from "./support/databases.ts";
import { fingerprint } from "./support/fingerprint.ts";
import { seen, story, TODOS } from "./support/todos.ts";

onEachDatabase("install", (open, server) => {
  test("brings the schema up to date once, however many try at once", async () => {
    await using database = await open();
    const results = await Promise.all([1, 2, 3].map(() => install(database.db)));
    expect(results.map((result) => result.to)).toEqual([SCHEMA_VERSION, SCHEMA_VERSION, SCHEMA_VERSION]);
    expect(results.filter((result) => result.from === 0)).toHaveLength(1);
  });

  test.each(["bemi", "Be mi", "audit-log", "größe"])(
    "uninstall leaves the database as it was, under the schema %s",
    async (schema) => {
      await using database = await open();
      await database.port.execute(`${TODOS}
      create table measures (at date not null, id int, primary key (at, id)) partition by range (at);
      create table measures_1 partition of measures for values from ('2026-01-01') to ('2026-02-01');
      alter table lists replica identity full;
      create function touched() returns trigger language plpgsql as 'begin return new; end';
      create trigger touch after update on todos for each row execute function touched();`);
      const before = await fingerprint(database.port);
      await install(database.db, { schema });
      await trackAll(database.db, { schema });
      expect((await status(database.db, { schema })).tables.map((t) => t.table)).toEqual([
        "lists",
        "measures",
        "todos",
      ]);
      await database.port.execute(
        "insert into lists (title) values ('home'); insert into measures values ('2026-01-05', 1)",
      );
      expect(await seen(database.port, schema)).toHaveLength(2);
      await uninstall(database.db, { schema });
      expect(await fingerprint(database.port)).toEqual(before);
    },
  );

  test("two schemas track the same table side by side, and the view belongs to the first", async () => {
    await using database = await open();
    await database.port.execute(TODOS);
    for (const schema of ["bemi", "Be mi"]) {
      await install(database.db, { schema });
      await track(database.db, "todos", { schema });
    }
    await database.port.execute("insert into todos (task) values ('Sleep')");
    expect(await seen(database.port, "bemi")).toHaveLength(1);
    expect(await seen(database.port, "Be mi")).toHaveLength(1);
    await uninstall(database.db, { schema: "Be mi" });
    expect(await database.port.query('select "primary_key", "table", "operation" from changes')).toEqual([
      { primary_key: "1", table: "todos", operation: "CREATE" },
    ]);
  });

  test("a relation of the application's called changes is left alone", async () => {
    await using database = await open();
    await database.port.execute("create table changes (id int); insert into changes values (7)");
    await install(database.db);
    await uninstall(database.db);
    expect(await database.port.query("select id from changes")).toEqual([{ id: 7 }]);
  });

  test("refuses a schema that holds somebody else's objects, and names that cannot be one", async () => {
    await using database = await open();
    await database.port.execute("create schema bemi; create table bemi.theirs (id int)");
    await expect(install(database.db)).rejects.toMatchObject({ code: "schema_incompatible" });
    for (const schema of ["pg_bemi", "public", "a'b", 'a"b', "a$b", "a%b", "", "x".repeat(64)]) {
      await expect(install(database.db, { schema })).rejects.toMatchObject({ code: "invalid_name" });
    }
  });

  test("refuses a schema newer than itself", async () => {
    await using database = await open();
    await install(database.db);
    await database.port.execute("insert into bemi.migrations (version, name) values (9999, 'later')");
    await expect(install(database.db)).rejects.toMatchObject({ code: "schema_incompatible" });
  });

  test("nobody but the owner gets rights, whatever default privileges say", async () => {
    await using database = await open();
    await database.port.execute(`
      create role ${server === "PGlite" ? "web" : `web_${process.pid}_${server}`};
      alter default privileges grant all on tables to public;
      alter default privileges grant all on schemas to public;
      alter default privileges grant all on functions to public;
      alter default privileges grant all on sequences to public`);
    await install(database.db);
    const granted = await database.port.query(`
      select c.oid::regclass::text as object, g.privilege_type from pg_class c, aclexplode(c.relacl) g
      where (c.relnamespace = 'bemi'::regnamespace or c.oid = 'public.changes'::regclass) and g.grantee <> c.relowner
      union all
      select p.oid::regprocedure::text, 'EXECUTE' from pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) g
      where p.pronamespace = 'bemi'::regnamespace and g.grantee <> p.proowner
      union all
      select nspname, g.privilege_type from pg_namespace, aclexplode(nspacl) g where nspname = 'bemi' and g.grantee <> nspowner`);
    expect(granted).toEqual([]);
  });

  test("the log refuses UPDATE, DELETE and TRUNCATE, on the table and on each partition", async () => {
    await using database = await open();
    await database.port.execute(TODOS);
    await install(database.db);
    await track(database.db, "todos");
    await database.port.execute("insert into todos (task) values ('Sleep')");
    const partitions = await database.port.query<{ name: string }>(
      "select relid::text as name from pg_partition_tree('bemi.changes')",
    );
    expect(partitions.length).toBeGreaterThan(4);
    for (const { name } of partitions) {
      await expect(database.port.execute(`truncate ${name}`)).rejects.toThrow(/append-only/);
    }
    await expect(database.port.execute("delete from bemi.changes")).rejects.toThrow(/append-only/);
    await expect(database.port.execute("update bemi.changes set after = '{}'")).rejects.toThrow(
      /append-only/,
    );
    expect(await story(database.port)).toEqual(["CREATE todos 1"]);
  });

  test("a missing partition costs nothing: the default one takes the row, and maintain() moves it", async () => {
    await using database = await open();
    await database.port.execute(TODOS);
    await install(database.db);
    await track(database.db, "todos");
    const [month] = await database.port.query<{ name: string }>(
      "select format('bemi.changes_p%s', to_char(now() at time zone 'UTC', 'YYYYMM')) as name",
    );
    await database.port.execute(`drop table ${month?.name}`);
    await database.port.execute("insert into todos (task) values ('Sleep')");
    expect(await database.port.query("select count(*)::int as n from bemi.changes_default")).toEqual([{
      n: 1,
    }]);
    const [made] = await database.port.query<{ action: string; partition: string }>(
      "select * from bemi.maintain()",
    );
    expect(`bemi.${made?.partition}`).toBe(month?.name);
    expect(await database.port.query("select count(*)::int as n from bemi.changes_default")).toEqual([{
      n: 0,
    }]);
    expect(await story(database.port)).toEqual(["CREATE todos 1"]);
  });

  test("retention drops whole months that have passed, and nothing younger", async () => {
    await using database = await open();
    await install(database.db);
    await database.port.execute(`
      select bemi.add_partition('2020-01-01'); select bemi.add_partition('2020-02-01');
      update bemi.settings set retention = '1 year'`);
    const dropped = await database.port.query("select * from bemi.maintain()");
    expect(dropped).toEqual([
      { action: "dropped", partition: "changes_p202001" },
      { action: "dropped", partition: "changes_p202002" },
    ]);
  });
});

onEachServer("a transaction over pg's Client", (open) => {
  test("ends with what went wrong, also where the connection went with it", async () => {
    await using database = await open();
    const client = new pg.Client({ connectionString: database.url });
    client.on("error", () => {});
    await client.connect();
    const lost = connect(client).transaction((tx) =>
      tx.query("select pg_terminate_backend(pg_backend_pid())")
    );
    await expect(lost).rejects.toMatchObject({ code: "57P01" });
    await client.end().catch(() => {});
  });
});
