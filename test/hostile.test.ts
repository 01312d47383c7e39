import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import * as api from "../src/install/mod.ts";
import { onEachDatabase, onEachServer } from "./support/databases.ts";
import { BEMI, createSlot, install, runWorker, SCHEMA as schema, track } from "./support/installation.ts";
import { ownRoles } from "./support/roles.ts";
import { seen, story } from "./support/todos.ts";

const bin = fileURLToPath(new URL("../dist/src/cli/bin.js", import.meta.url));

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
    await port.execute(ownRoles("hostile", api.rolesSql({ schema })));
    try {
      await port.execute("alter role hostile_application login");
      const app = database.connect({ username: "hostile_application", max: 1 });
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
        .toEqual([["1", "hostile_application", undefined], ["2", "hostile_application", undefined]]);
    } finally {
      await port.execute(`drop owned by hostile_application, hostile_reader, hostile_worker;
        drop role hostile_application, hostile_reader, hostile_worker`);
    }
  });

  test("gets no function run with the rights of the log's owner, by a cast to json", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    await port.execute(`update ${BEMI}.settings set track_all = true; create role bemi_somebody login;
      grant create on schema public to bemi_somebody`);
    try {
      const app = database.connect({ username: "bemi_somebody", max: 1 });
      const gained = `create type mood as enum ('happy');
        create function gain(mood) returns json language plpgsql as $$ begin
          raise exception 'as %', current_user using errcode = 'ZZ666'; end $$`;
      await app.unsafe(gained);
      await expect(app`create cast (mood as json) with function gain(mood)`).rejects.toMatchObject({
        code: "42501",
      });
      await app.unsafe(
        "create table moods (id int primary key, m mood); insert into moods values (1, 'happy')",
      );
      expect(await story(port)).toEqual(["CREATE moods 1"]);
      // A superuser's may be: it could do anything anyway. And so may casts to anything else.
      await port.execute(`create function told(mood) returns json language sql as $$ select '"told"'::json $$;
        create cast (mood as json) with function told(mood)`);
      await app.unsafe("create function spelled(mood) returns text language sql as $$ select 'x' $$");
      await app.unsafe("create cast (mood as text) with function spelled(mood)");
      await app.unsafe("insert into moods values (2, 'happy')");
      expect((await seen(port)).map(({ after }) => after.m)).toEqual(["happy", "told"]);
    } finally {
      await port.execute("drop owned by bemi_somebody cascade; drop role bemi_somebody");
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

const EVIL = `create schema evil;
  create function evil.never() returns void language plpgsql as $$ begin raise exception 'called' using errcode = 'ZZ666'; end $$;
  do $$ declare v_name text; begin
    foreach v_name in array array['format(text, name, name) returns text', 'format(text, text, text) returns text',
      'set_config(text, text, boolean) returns text', 'current_setting(text) returns text', 'current_setting(text, boolean) returns text',
      'to_regclass(text) returns regclass', 'current_database() returns name', 'version() returns text', 'now() returns timestamptz',
      'pg_current_wal_flush_lsn() returns pg_lsn', 'pg_replication_slot_advance(name, pg_lsn) returns record',
      'hashtextextended(text, integer) returns bigint', 'pg_has_role(name, oid, text) returns boolean',
      'pg_logical_emit_message(boolean, text, text) returns pg_lsn', 'pg_backend_pid() returns integer',
      'to_jsonb(anyelement) returns jsonb', 'clock_timestamp() returns timestamptz', 'octet_length(text) returns integer',
      'json_build_object(text, oid, text, text) returns json', 'to_char(timestamp, text) returns text',
      'format(text, oid, oid, integer, text, name, text, text, text, text) returns text', 'left(text, integer) returns text',
      'pg_partition_root(regclass) returns regclass', 'pg_partition_root(oid) returns regclass',
      'pg_trigger_depth() returns integer', 'current_query() returns text', 'strpos(text, text) returns integer',
      'extract(text, timestamptz) returns numeric', 'statement_timestamp() returns timestamptz']
    loop
      execute format('create function evil.%s language plpgsql as $f$ begin perform evil.never(); end $f$', v_name);
    end loop;
    foreach v_name in array array['text, text', 'name, text', 'name, name', 'oid, oid', 'integer, integer'] loop
      execute format('create function evil.compare(%s) returns boolean language plpgsql as $f$ begin perform evil.never(); end $f$', v_name);
      continue when v_name = 'integer, integer';
      execute format('create operator evil.= (leftarg = %s, rightarg = %s, function = evil.compare)',
        split_part(v_name, ', ', 1), split_part(v_name, ', ', 2));
    end loop;
    create operator evil.<> (leftarg = text, rightarg = text, function = evil.compare);
    create operator evil.> (leftarg = integer, rightarg = integer, function = evil.compare);
    create function evil.joined(text, text) returns text language plpgsql as $f$ begin perform evil.never(); end $f$;
    create operator evil.|| (leftarg = text, rightarg = text, function = evil.joined);
    create domain evil.oid as pg_catalog.oid check (false);
    create domain evil.text as pg_catalog.text check (false);
    execute format('alter database %I set search_path = evil, pg_catalog, public', current_database());
  end $$;`;

onEachServer("a search path in which somebody's functions and operators come before PostgreSQL's", (open) => {
  test("leads neither the command line astray, nor a write that is captured, nor the worker", async () => {
    await using database = await open();
    const { port, url } = database;
    await port.execute(
      `create table todos (id int primary key, task text); insert into todos values (0); ${EVIL}`,
    );
    const bemi = (...args: string[]): string => {
      const ran = spawnSync(process.execPath, [bin, ...args, "--database-url", url], { encoding: "utf8" });
      expect([args, ran.status, ran.stderr]).toEqual([args, 0, expect.not.stringMatching(/ZZ666/)]);
      return ran.stdout;
    };
    const write = async (id: number): Promise<void> => {
      const app = database.connect({ max: 1, fetch_types: false });
      // Led astray for sure, were it not for its qualified name.
      await expect(app.unsafe("select current_database()")).rejects.toMatchObject({ code: "ZZ666" });
      await app.unsafe(`insert into todos values (${id})`);
      await app.end();
    };
    bemi("init", "--all", "--capture", "wal");
    await port.execute(ownRoles("hostile", api.rolesSql()));
    try {
      await port.execute("alter role hostile_worker login");
      await write(1);
      await runWorker({ source: url.replace("postgres@", "hostile_worker@"), once: true, schema: "bemi" })
        .finished;
      bemi("track", "todos", "--capture", "trigger", "--baseline");
      await write(2);
      expect(
        [...bemi("changes", "todos", "--json").matchAll(/"operation" ?: ?"(\w+)"/g)].map((match) => match[1]),
      ).toEqual(["CREATE", "SNAPSHOT", "SNAPSHOT", "CREATE"]);
      for (
        const args of [["status"], ["doctor", "--json"], ["maintain"], ["untrack", "todos"], [
          "init",
          "--dry-run",
        ]]
      ) {
        bemi(...args);
      }
    } finally {
      await port.execute(`drop owned by hostile_application, hostile_reader, hostile_worker;
        drop role hostile_application, hostile_reader, hostile_worker`);
    }
    bemi("uninstall", "--yes");
  });
});

onEachServer("a database without an encoding", (open) => {
  test("keeps taking whatever bytes its application writes, polled or not", async () => {
    await using database = await open({ encoding: "SQL_ASCII" });
    const { db, port } = database;
    await install(db);
    await createSlot(db);
    await port.execute(
      "create table jobs (id int primary key, v text); create table todos (id int primary key, v text)",
    );
    await track(db, "jobs", { capture: "wal", polled: true });
    await track(db, "todos", { capture: "wal" });
    const app = database.connect({ max: 1, connection: { client_encoding: "SQL_ASCII" } });
    for (const table of ["jobs", "todos"]) {
      await app.unsafe(`insert into ${table} values (1, 'a')`);
      // A byte that is no UTF-8, in the statement and in the context.
      await app.unsafe(`do $$ begin
        perform set_config('bemi.context', '{"who": "J' || convert_from('\\xf6'::bytea, 'SQL_ASCII') || 'rg"}', true);
        update ${table} set v = 'b' where id = 1 and v <> convert_from('\\xf6'::bytea, 'SQL_ASCII'); end $$`);
    }
    await runWorker({ source: database.url, once: true }).finished;
    expect(await story(port)).toEqual(["CREATE jobs 1", "UPDATE jobs 1", "CREATE todos 1", "UPDATE todos 1"]);
  });
});

onEachServer("a dump that is restored into a database of another encoding", (open) => {
  test("has its context in UTF-8 once the slot is there", async () => {
    await using database = await open({ encoding: "LATIN1" });
    const { db, port } = database;
    await install(db);
    await port.execute("create table todos (id int primary key)");
    await port.query(`select ${BEMI}.track('todos', '{"capture": "wal"}')`);
    // As a database in UTF-8 had it.
    await port.execute(
      `create or replace function ${BEMI}.is_plain_emission() returns boolean language sql stable return true`,
    );
    await createSlot(db);
    await port.transaction(async (tx) => {
      await tx.query(`select set_config('bemi.context', '{"who": "Jörg"}', true)`);
      await tx.execute("insert into todos values (1)");
    });
    await runWorker({ source: database.url, once: true }).finished;
    expect((await seen(port)).map(({ context }) => context.who)).toEqual(["Jörg"]);
  });
});

onEachServer("a masked column", (open) => {
  test("is not in what was set aside, in errors or in the worker's log either", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    await createSlot(db);
    await port.execute("create table people (id int primary key, body json, password text)");
    await track(db, "people", { capture: "wal", mask: ["password"] });
    const told: unknown[] = [];
    await port.execute(
      `insert into people values (1, '"\\u0000"', 's3cret one'); update people set password = 's3cret two';
      update people set body = '"\\ud800"', password = 's3cret three'; delete from people`,
    );
    const log = (event: object): void => void told.push(Object.values(event).map(String));
    await runWorker({ source: database.url, once: true, log }).finished;
    const aside = await port.query<{ change: string }>(`select change from ${BEMI}.set_aside`);
    expect(aside.length).toBeGreaterThanOrEqual(3);
    expect(JSON.stringify([aside, told, await seen(port)])).not.toMatch(/s3cret/);
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
