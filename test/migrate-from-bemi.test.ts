import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, test, vi } from "vitest";
import { type Change, changes } from "../src/history/mod.ts";
import { importChanges } from "../src/install/mod.ts";
import { onEachServer, type TestDatabase } from "./support/databases.ts";
import { fingerprint } from "./support/fingerprint.ts";
import { FORMER_WORKER, formerTriggers, formerWorker } from "./support/former-bemi.ts";
import { BEMI, install, maintain, SCHEMA, track, uninstall } from "./support/installation.ts";
import { npmPackages } from "./support/npm-packages.ts";

const root = fileURLToPath(new URL("../", import.meta.url));
const former = npmPackages("bemi-prisma", ["@bemi-db/prisma@1.1.0", "@prisma/client@6.7.0"]);

/** The README's section, and its SQL. */
const [guide = "", removal = ""] = /^## From Bemi's own worker$[^]*?^```sql\n([^]*?)^```$[^]*?(?=^## )/m.exec(
  readFileSync(`${root}README.md`, "utf8"),
) ??
  [];

const run = promisify(execFile);

/** A step of the guide, while all else here goes on; gives what it says. */
async function step(database: TestDatabase, command: string): Promise<string> {
  if (SCHEMA === "bemi") expect(guide, "the README's guide").toContain(`\`npx ${command}\``);
  const args = ["dist/src/cli/bin.js", ...command.split(" ").slice(1), "--schema", SCHEMA];
  const env = { PATH: process.env.PATH ?? "", DATABASE_URL: database.url as string };
  return (await run(process.execPath, args, { cwd: root, env })).stderr;
}

/** A client that never stops writing: its nth statement is by user n. */
function clientOf(database: TestDatabase): AsyncDisposable & {
  /** Once it has written so many more. */
  more(count: number): Promise<void>;
  /** How many it has written in all. */
  stop(): Promise<number>;
} {
  const sql = database.connect({ max: 1 });
  let [written, isStopped] = [0, false];
  const finished = (async () => {
    while (!isStopped) {
      const user = written + 1;
      const statement = user % 3 === 0
        ? `update todos set task = 'by ${user}' where id = ${user - 1}`
        : `insert into todos values (${user}, 'by ${user}')`;
      await sql.unsafe(`${statement} /*Bemi {"user_id": ${user}} Bemi*/`);
      written = user;
      // As fast as the stand-in for their worker can follow.
      await new Promise((done) => setTimeout(done, 10));
    }
  })();
  const stop = async (): Promise<number> => {
    isStopped = true;
    await finished;
    return written;
  };
  return {
    more: async (count) => {
      const enough = written + count;
      await Promise.race([
        finished,
        vi.waitFor(() => expect(written).toBeGreaterThanOrEqual(enough), 60_000),
      ]);
    },
    stop,
    [Symbol.asyncDispose]: async () => {
      await stop().finally(() => sql.end());
    },
  };
}

interface Row {
  readonly id: string;
  readonly position: string;
  readonly what: string;
  readonly user: number | null;
}

const readChanges = async ({ port }: TestDatabase): Promise<Row[]> =>
  await port.query<Row>(
    `select id::text, position::text, operation || ' ' || "table" || ' ' || primary_key as what, (context ->> 'user_id')::int as user
    from changes order by committed_at, position`,
  );

onEachServer("moving from Bemi's own triggers and worker", (open) => {
  test.skipIf(!former)(
    "loses no change and no context, and repeats none, while the application goes on",
    async () => {
      await using database = await open();
      const { port } = database;
      let user = 0;
      const written: [what: string, user: number][] = [];
      const write = async (what: string, statement: string): Promise<void> => {
        await port.execute(`${statement} /*Bemi {"user_id": ${++user}} Bemi*/`);
        written.push([what, user]);
      };
      await port.execute(
        `create table todos (id int primary key, task text); alter table todos replica identity full;
      ${FORMER_WORKER}
      create role reader_${process.pid}_${database.server}; grant select on changes to reader_${process.pid}_${database.server};
      ${former && formerTriggers(former)}`,
      );
      await port.execute("select pg_create_logical_replication_slot('bemi_local', 'test_decoding')");
      await write("CREATE todos 1", "insert into todos values (1, 'old')");
      await write("UPDATE todos 1", "update todos set task = 'old, done' where id = 1");
      await formerWorker(port);
      const [first] = await readChanges(database);

      await write("CREATE todos 2", "insert into todos values (2, 'before the step')");
      await step(database, "bemi init --all");
      // Both record now; theirs must be able to read on, and their triggers, which write nothing, cost no row level.
      expect(await port.query(`select row_level from ${BEMI}.tracked_tables`)).toEqual([{
        row_level: false,
      }]);
      await write("CREATE todos 3", "insert into todos values (3, 'both')");
      await write("DELETE todos 1", "delete from todos where id = 1");
      await port.execute("create table notes (id int primary key, body text)");
      await write("CREATE notes 1", "insert into notes values (1, 'a new table')");
      await formerWorker(port);
      await write("CREATE todos 4", "insert into todos values (4, 'their worker is stopped')");
      await port.execute(removal);
      await write("CREATE todos 5", "insert into todos values (5, 'their triggers are gone')");
      expect(await step(database, "bemi import-changes")).toMatch(
        /Imported 3 changes; 3 were in the log already/,
      );

      await write("CREATE todos 6", "insert into todos values (6, 'after')");
      await step(database, "bemi init --all --capture wal");
      await write("UPDATE todos 6", "update todos set task = 'from the WAL' where id = 6");
      await step(database, "bemi worker --once");

      const changes = await readChanges(database);
      expect(changes.map((row) => [row.what, row.user])).toEqual(written);
      expect(changes[0]).toEqual(first);
      const role = `reader_${process.pid}_${database.server}`;
      const [{ may } = { may: false }] = await port.query<{ may: boolean }>(
        `select has_table_privilege('${role}', 'changes', 'SELECT') as may`,
      );
      expect(may).toBe(true);
      // Nothing of theirs is left, and ours has partitions for the old months.
      expect(await port.query("select from pg_trigger where tgname like '\\_bemi%'")).toEqual([]);
      expect(await port.query(`select from ${BEMI}.changes_default`)).toEqual([]);
      await maintain(database.db);
      expect(await readChanges(database)).toEqual(changes);
      await step(database, "bemi doctor");
      // An imported change is found by its id, which is not one of ours.
      const [found] = await port.query<{ at: boolean }>(
        `select (m).at = (select committed_at from changes where id = '${first?.id}') as at
        from (select ${BEMI}.moment_of('${first?.id}') as m) as moment`,
      );
      expect(found?.at).toBe(true);
      await port.execute(`drop owned by ${role}; drop role ${role}`);
    },
  );

  test.skipIf(!former)("a client that never stops writing loses no change, and has none twice", async () => {
    await using database = await open();
    const { port } = database;
    await port.execute(
      `create table todos (id int primary key, task text); alter table todos replica identity full;
      ${FORMER_WORKER} ${former && formerTriggers(former)}`,
    );
    await port.execute("select pg_create_logical_replication_slot('bemi_local', 'test_decoding')");
    await using client = clientOf(database);
    await client.more(10);
    await formerWorker(port);
    await client.more(5);
    await step(database, "bemi init --all");
    await client.more(10);
    await formerWorker(port);
    await client.more(10);
    await port.execute(removal);
    await client.more(10);
    await step(database, "bemi import-changes");
    await client.more(10);
    await step(database, "bemi init --all --capture wal");
    await client.more(10);
    const written = await client.stop();
    await step(database, "bemi worker --once");
    const users = (await readChanges(database)).map(({ user }) => user);
    expect(users).toEqual(Array.from({ length: written }, (_, n) => n + 1));
  });

  test.skipIf(!former)(
    "what the packages' migrations made is gone by the guide's SQL, Supabase's as well",
    async () => {
      await using database = await open();
      const { port } = database;
      const before = await fingerprint(port);
      await port.execute(`create table todos (id int primary key, task text);
      ${former && formerTriggers(former)}
      create publication dbz_publication for all tables;
      create function bemi_set_context(context text) returns text language sql as $$ select context $$;
      create function _bemi_pass_sb_context_func() returns trigger language plpgsql as $$ begin return new; end $$;
      create trigger _bemi_row_trigger_sb before insert on todos for each row execute function _bemi_pass_sb_context_func();
      ${removal} drop table todos`);
      expect(await fingerprint(port)).toEqual(before);
    },
  );

  test.skipIf(!former)("a role that does not own their event trigger installs as well", async () => {
    await using database = await open();
    const { port } = database;
    const role = `owner_${process.pid}_${database.server}`;
    const [{ name } = { name: "" }] = await port.query<{ name: string }>("select current_database() as name");
    await port.execute(`create role ${role} login; grant create on database ${name} to ${role};
      grant create on schema public to ${role};
      set role ${role}; create table todos (id int primary key, task text); reset role;
      ${former && formerTriggers(former)}`);
    const sql = database.connect({ username: role, max: 1 });
    try {
      await install(sql);
      await track(sql, "todos");
      await sql`insert into todos values (1, 'a')`;
      await port.execute(`update ${BEMI}.settings set partitions_ahead = 5`);
      expect(await maintain(sql)).toHaveLength(2);
      await port.execute("create table later (id int primary key)");
    } finally {
      await sql.end();
      await port.execute(`drop owned by ${role} cascade; drop role ${role}`);
    }
  });

  test("of several logs that were imported, each change has a cursor to read on from", async () => {
    await using database = await open();
    const { db, port } = database;
    await port.execute(`${FORMER_WORKER} drop publication dbz_publication;
      create table more (like changes including all);
      insert into changes (created_at, primary_key, database, schema, "table", operation, committed_at, queued_at, transaction_id, position)
      select now(), n::text, current_database(), 'public', 'todos', 'CREATE', now(), now(), n, n from generate_series(1, 4) n;
      with moved as (delete from changes where position > 2 returning *) insert into more select * from moved`);
    await install(db);
    for (const table of ["changes", "more"]) await importChanges(db, table, { schema: SCHEMA });
    const keys: (string | null)[] = [];
    for (let after: string | undefined = ""; after !== undefined;) {
      const page: Change[] = await changes(db, { schema: SCHEMA, page: { after, limit: 1 } });
      keys.push(...page.map(({ primary_key }) => primary_key));
      after = page[0]?.cursor;
    }
    expect(keys).toEqual(["3", "4", "1", "2"]);
  });

  test("old rows keep ids and times, get the key they lacked, and lose what is masked today", async () => {
    await using database = await open();
    const { db, port } = database;
    await port.execute(`${FORMER_WORKER} drop publication dbz_publication;
      create table people (code text primary key, name text, password text);
      create table parts (at date, id int, primary key (at, id)) partition by range (at);
      create table parts_1 partition of parts for values from ('2020-01-01') to ('2030-01-01');
      insert into changes (id, created_at, primary_key, before, after, context, database, schema, "table", operation, committed_at, queued_at, transaction_id, position)
      select ('00000000-0000-4000-8000-00000000000' || n)::uuid, '2024-01-02', null, '{}', '{"code": "a", "name": "n", "password": "p"}',
        '{"user_id": 7, "SQL": "p"}', current_database(), 'public', 'people', 'CREATE', '2024-01-01 00:00:00.123+00', '2024-01-02', 5, 10 + n
      from generate_series(1, 2) n;
      insert into changes (created_at, primary_key, after, database, schema, "table", operation, committed_at, queued_at, transaction_id, position)
      values ('2024-02-02', null, '{"at": "2024-02-01", "id": 3}', current_database(), 'public', 'parts_1', 'CREATE', '2024-02-01', '2024-02-02', 6, 20)`);
    await install(db);
    await track(db, "people", { mask: ["password"] });
    await track(db, "parts");
    await port.execute("insert into people values ('b', 'new', 'x')");
    const result = await importChanges(db, "changes", { schema: SCHEMA });
    expect(result).toEqual({ imported: 3, known: 0, renamed: "public.bemi_former_changes" });
    const rows = await port.query(
      `select id::text, primary_key as key, "table", after::text, context::text, committed_at = '2024-01-01 00:00:00.123+00' as at,
        commit_lsn::text || '/' || transaction_index as place, tableoid::regclass::text like '%p202401%' as partitioned
      from ${BEMI}.changes order by source_id, commit_lsn, transaction_index`,
    );
    expect(rows.map((row) => Object.values(row as object))).toEqual([
      ...[1, 2].map((n) => [
        `00000000-0000-4000-8000-00000000000${n}`,
        "a",
        "people",
        '{"code": "a", "name": "n"}',
        '{"user_id": 7}',
        true,
        `0/C/${n - 1}`,
        true,
      ]),
      [
        expect.any(String),
        '["2024-02-01", 3]',
        "parts",
        '{"at": "2024-02-01", "id": 3}',
        "{}",
        false,
        "0/14/0",
        false,
      ],
      [
        expect.any(String),
        "b",
        "people",
        '{"code": "b", "name": "new"}',
        expect.any(String),
        false,
        expect.any(String),
        false,
      ],
    ]);
    // Again, from the table's new name: nothing twice.
    expect(await importChanges(db, "bemi_former_changes", { schema: SCHEMA })).toMatchObject({
      imported: 0,
      known: 3,
    });
    await expect(importChanges(db, "people", { schema: SCHEMA })).rejects.toMatchObject({ code: "usage" });
    await expect(importChanges(db, "nowhere", { schema: SCHEMA })).rejects.toMatchObject({
      code: "table_missing",
    });
    await uninstall(db);
    expect(await port.query("select from changes")).toHaveLength(3);
  });
});
