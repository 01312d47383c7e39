import postgres from "postgres";
import { describe, expect, inject, test, vi } from "vitest";
import { connect } from "../src/database/connect.ts";
import { onEachServer, openOn } from "./support/databases.ts";
import { dumpAndRestore, dumpRefusal } from "./support/dump.ts";
import { BEMI, createSlot, install, runWorker, SCHEMA, track, untrack } from "./support/installation.ts";
import { type Server, startServer } from "./support/servers.ts";

interface Line {
  readonly id: string;
  readonly source_id: number;
  readonly story: string;
}

// In the total order.
const lines = (sql: postgres.Sql): Promise<Line[]> =>
  sql.unsafe<Line[]>(`
    select id::text, source_id, format('%s %s %s', operation, primary_key, after ->> 'task') as story
    from ${BEMI}.changes order by source_id, commit_lsn, transaction_index`);

const client = (server: Server): postgres.Sql => postgres(server.url(), { max: 1, onnotice() {} });

describe.each(inject("servers").map(({ version }) => [version]))(
  "a promoted standby of PostgreSQL %s, captured by triggers",
  (version) => {
    test("goes on with the history, in order, and neither it nor the former server gives an id twice", async () => {
      const primary = await startServer(version);
      const standby = await primary.copy("standby", [
        `primary_conninfo=host=127.0.0.1 port=${new URL(primary.url()).port} user=postgres`,
      ]);
      const former = client(primary);
      const next = client(standby);
      try {
        await install(former);
        await former`create table todos (id int primary key, task text)`;
        await track(former, "todos", { capture: "trigger" });
        await former`insert into todos values (1, 'a')`;
        await former`update todos set task = 'b'`;
        await standby.start();
        const [at] = await former`select pg_current_wal_lsn()::text as lsn`;
        await vi.waitFor(async () => {
          const [row] = await next`select pg_last_wal_replay_lsn() >= ${at?.lsn}::pg_lsn as is_there`;
          expect(row?.is_there).toBe(true);
        }, { timeout: 20_000 });
        const before = await lines(former);
        expect(await lines(next)).toEqual(before);

        await next`select pg_promote()`;
        await next`update todos set task = 'c'`;
        // The former one lives on for a while, at the same LSNs and transaction ids.
        await former`update todos set task = 'other'`;
        await former`insert into todos values (2, 'other')`;
        await next`delete from todos`;

        const after = await lines(next);
        expect(after.slice(0, 2)).toEqual(before);
        expect(after.map(({ story }) => story)).toEqual([
          "CREATE 1 a",
          "UPDATE 1 b",
          "UPDATE 1 c",
          "DELETE 1 ",
        ]);
        expect(after[2]?.source_id).toBeGreaterThan(before[0]?.source_id ?? 0);
        const everywhere = [...after, ...(await lines(former)).slice(2)].map(({ id }) => id);
        expect(new Set(everywhere).size).toBe(6);
        const [row] = await connect(next).query<{ task: string }>(
          `select task from ${BEMI}.as_of(null::todos, (select committed_at from ${BEMI}.changes where after ->> 'task' = 'c'))`,
        );
        expect(row?.task).toBe("c");
      } finally {
        await former.end({ timeout: 1 });
        await next.end({ timeout: 1 });
        await standby.remove();
        await primary.remove();
      }
    });
  },
);

const CAPTURES = ["trigger", "wal"] as const;

const versions = inject("servers").map(({ version }) => version);
const pairs = versions.flatMap((from) =>
  versions.filter((to) => Number(to) > Number(from)).map((to) => ({ from, to }))
);

describe.each(pairs)(
  "a move by publication and subscription from PostgreSQL $from to $to",
  ({ from, to }) => {
    const refusal = dumpRefusal(from);
    for (const capture of CAPTURES) {
      test.skipIf(refusal !== undefined)(
        `takes the history along, and goes on with it (${capture})${refusal ? `: skipped, ${refusal}` : ""}`,
        async () => {
          await using former = await openOn(from);
          await using next = await openOn(to);
          const write = async (database: typeof former, statement: string): Promise<void> => {
            await database.port.execute(statement);
            if (capture === "wal") await runWorker({ source: database.url, once: true }).finished;
          };
          await install(former.db);
          if (capture === "wal") await createSlot(former.db);
          await former.port.execute(
            "create table todos (id int primary key, task text, at timestamptz, n numeric)",
          );
          await track(former.db, "todos", { capture });
          await write(former, "insert into todos values (1, 'a', '2026-11-01 12:00:00.123456+00', 1.50)");

          // Everything but the rows of the application's tables and of the log, which are published.
          dumpAndRestore(former.url, next.url, [
            "--exclude-table-data=public.*",
            `--exclude-table-data="${SCHEMA}".changes*`,
          ]);
          // What arrives has been captured where it was written.
          await untrack(next.db, "todos");
          const name = `move_${new URL(former.url).pathname.slice(1)}`;
          await former.port.execute(
            `create publication ${name} for table todos, ${BEMI}.changes with (publish_via_partition_root = true)`,
          );
          const { hostname, port } = new URL(former.url);
          await next.port.execute(
            `create subscription ${name} connection 'host=${hostname} port=${port} user=postgres dbname=${
              former.url.split("/").at(-1)
            }' publication ${name}`,
          );
          try {
            await write(former, "update todos set task = 'b'");
            await write(
              former,
              "update todos set id = 2; insert into todos values (3, 'gone'); delete from todos where id = 3",
            );
            const before = await lines(former.db);
            expect(before).toHaveLength(5);
            // The tables are copied one beside the other: neither has to be there when the other is.
            const rows = "select todos::text as row from todos order by id";
            const there = await former.port.query(rows);
            await vi.waitFor(async () => {
              expect(await lines(next.db)).toEqual(before);
              expect(await next.port.query(rows)).toEqual(there);
            }, { timeout: 60_000 });
          } finally {
            await next.port.execute(`drop subscription ${name}`);
          }
          const before = await lines(former.db);
          const images =
            `select before::text, after::text, context::text, committed_at::text from ${BEMI}.changes order by id`;
          expect(await next.port.query(images)).toEqual(await former.port.query(images));

          await install(next.db);
          if (capture === "wal") await createSlot(next.db);
          await track(next.db, "todos", { capture });
          await write(next, "update todos set task = 'c'");
          await write(former, "update todos set task = 'other'");
          const after = await lines(next.db);
          expect(after.slice(0, 5)).toEqual(before);
          expect(after.slice(5).map(({ story }) => story)).toEqual(["UPDATE 2 c"]);
          expect(after[5]?.source_id).toBeGreaterThan(before[0]?.source_id ?? 0);
          const everywhere = [...after, ...(await lines(former.db)).slice(5)].map(({ id }) => id);
          expect(new Set(everywhere).size).toBe(7);
          expect(
            (await next.port.query(`select operation from ${BEMI}.history('todos', '2')`)).length,
          ).toBe(4);
        },
      );
    }
  },
);

onEachServer("a publication of all tables, the log among them", (open) => {
  test("keeps no partition's move from being one change", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    await port.execute(`
      create table todos (id int, list int, primary key (id, list)) partition by list (list);
      create table todos_1 partition of todos for values in (1);
      create table todos_2 partition of todos for values in (2);
      create function done() returns trigger language plpgsql as $$ begin return null; end $$;
      create trigger done after update on todos for each row execute function done();
      create publication everything for all tables`);
    await track(db, "todos", { capture: "trigger" });
    await port.execute("insert into todos values (1, 1); update todos set list = 2");
    expect((await lines(db)).map(({ story }) => story)).toEqual(["CREATE [1, 1] ", "UPDATE [1, 2] "]);
  });
});
