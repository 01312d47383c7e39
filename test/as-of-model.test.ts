import fc from "fast-check";
import { expect, test } from "vitest";
import type { Database } from "../src/database/port.ts";
import { sqlstateOf } from "../src/database/sqlstate.ts";
import { baseline } from "../src/install/mod.ts";
import { onEachDatabase, onEachServer, type TestDatabase } from "./support/databases.ts";
import { BEMI, createSlot, install, runWorker, SCHEMA as schema, track } from "./support/installation.ts";
import { clock } from "./support/moments.ts";

// Random histories, with every table noted after each commit: as of each of those moments, it is as it was noted.

const TABLES = `
  create table lists (id int primary key, title text);
  create table todos (id int, task text, n numeric, list_id int references lists on delete cascade on update cascade,
    primary key (id) deferrable);
  create table parts (id int, k int, v text, primary key (id, k)) partition by list (k);
  create table parts_1 partition of parts for values in (1);
  create table parts_2 (v text, k int not null, id int not null, primary key (id, k));
  alter table parts attach partition parts_2 for values in (2);
  create table audited (id int primary key, v text);
  create function touch() returns trigger language plpgsql as $$ begin
    if pg_trigger_depth() = 1 then update audited set v = v || '+' where id = new.id; end if; return null; end $$;
  create trigger touch after insert or update on audited for each row execute function touch();
  create table loose (a int, b text, at timestamptz default '2026-07-01 00:00+00');
  create table slots (at timestamptz primary key, bytes bytea, took interval, f float8);`;

const NAMES = ["lists", "todos", "parts", "audited", "loose", "slots"] as const;

// Whose output is whose: the log's is one, whatever the application's sessions and its readers have.
const SESSIONS = [
  "",
  `set local timezone = 'Europe/Berlin'; set local datestyle = 'German, DMY'; set local bytea_output = 'escape';
  set local intervalstyle = 'sql_standard'; set local extra_float_digits = 0`,
] as const;

const ROWS = `insert into lists values (1, 'one'), (2, 'two');
  insert into todos values (1, 'a', 1.5, 1), (2, 'b', null, 2), (3, 'c', 3, null);
  insert into parts values (1, 1, 'x'), (2, 2, 'y'); insert into audited values (1, 'v');
  insert into loose values (1, 'a'), (1, 'a'), (null, 'b');
  insert into slots values ('2026-01-01 12:00+00', '\\x01', '1 day 2 hours', 0.1), ('2026-07-01 12:00+00', '\\x02', null, 1e300)`;

const id = fc.integer({ min: 1, max: 4 });
const text = fc.constantFrom("a", "b", "it''s", "");
const statement = fc.oneof(
  {
    weight: 10,
    arbitrary: fc.oneof(
      id.map((a) => `insert into lists (id) values (${a}) on conflict do nothing`),
      fc.tuple(id, id).map(([a, b]) => `update lists set id = ${b} where id = ${a}`),
      id.map((a) => `delete from lists where id = ${a}`),
      fc.tuple(id, text, id).map(([a, t, l]) =>
        `insert into todos (id, n, list_id) select ${a}, length('${t}'), (select id from lists where id = ${l}) where not exists (select from todos where id = ${a})`
      ),
      fc.constant("update todos set id = id + 1"),
      fc.constant("update todos set id = 5 - id where id between 1 and 4"),
      fc.tuple(id, id).map(([a, b]) => `update todos set id = ${b} where id = ${a}`),
      fc.tuple(id, id).map(([a, b]) => `update todos set n = n * 1.1 + ${b} where id % 2 = ${a % 2}`),
      id.map((a) => `delete from todos where id = ${a}`),
      fc.tuple(id, id, text).map(([a, k, t]) =>
        `insert into parts values (${a}, ${k % 2 + 1}, '${t}') on conflict do nothing`
      ),
      fc.tuple(id, id).map(([a, k]) => `update parts set k = ${k % 2 + 1}, v = v || 'm' where id = ${a}`),
      id.map((a) => `delete from parts where id = ${a}`),
      fc.tuple(id, text).map(([a, t]) =>
        `insert into audited values (${a}, '${t}') on conflict (id) do update set v = excluded.v`
      ),
      fc.constant("update audited set v = v || '!', id = id + 10 where id < 3"),
      fc.tuple(id, text).map(([a, t]) => `insert into loose values (${a}, '${t}'), (${a}, '${t}')`),
      text.map((t) => `update loose set b = b || '${t}x' where ctid = (select min(ctid) from loose)`),
      fc.constant("delete from loose where ctid = (select max(ctid) from loose)"),
      fc.tuple(id, id).map(([a, b]) =>
        `insert into slots values ('2026-0${a}-01 12:00+00', '\\x0${b}', '${b} hours', ${b} / 3.0) on conflict (at) do update
          set took = slots.took + excluded.took, f = slots.f / 3`
      ),
      fc.tuple(id, id).map(([a, b]) =>
        `update slots set at = at + interval '${b} hours' where at < '2026-0${a}-01 12:00+00'`
      ),
      id.map((a) => `delete from slots where at = '2026-0${a}-01 12:00+00'`),
    ),
  },
  {
    weight: 1,
    arbitrary: fc.constantFrom(
      "truncate todos",
      "truncate lists cascade",
      "truncate parts",
      "truncate loose",
      "alter table todos add column extra text default 'd'",
      "alter table todos add column extra int",
      "alter table todos drop column extra",
      "alter table todos rename column extra to other",
      "alter table todos rename column other to extra",
      "alter table lists rename column title to name",
      "alter table lists drop column if exists title",
      "update todos set extra = null where id = 1",
    ),
  },
);
const histories = fc.record({
  hasRows: fc.boolean(),
  // How a worker reads the WAL, where one does.
  mode: fc.constantFrom("stream" as const, "poll" as const),
  writer: fc.constantFrom(...SESSIONS),
  reader: fc.constantFrom(...SESSIONS),
  // Before which transaction the rows are recorded that are there.
  baselineAt: fc.option(fc.constantFrom(0, 3), { nil: Infinity }),
  transactions: fc.array(fc.array(statement, { minLength: 1, maxLength: 3 }), {
    minLength: 5,
    maxLength: 25,
  }),
});
type History = typeof histories extends fc.Arbitrary<infer T> ? T : never;

type Rows = Record<string, unknown>[];

/** The rows by the numbers of their columns, which survive a rename. */
async function note(port: Database, reader: string, table: string): Promise<Rows> {
  const names = await columns(port, table);
  const rows = await read(port, reader, `select to_jsonb(r.*) as row from ${table} r`);
  return rows.map((row) =>
    Object.fromEntries(Object.entries(row).map(([name, value]) => [names.get(name) ?? "", value]))
  );
}

async function columns(port: Database, table: string): Promise<Map<string, string>> {
  const rows = await port.query<{ attname: string; attnum: number }>(
    `select attname, attnum from pg_attribute where attrelid = '${table}'::regclass and attnum > 0 and not attisdropped`,
  );
  return new Map(rows.map((row) => [row.attname, String(row.attnum)]));
}

async function read(port: Database, reader: string, select: string): Promise<Rows> {
  return await port.transaction(async (tx) => {
    await tx.execute(reader);
    const [found] = await tx.query<{ json: string }>(
      `select coalesce(json_agg(row), '[]')::text as json from (${select}) as r`,
    );
    return JSON.parse(found?.json ?? "[]") as Rows;
  });
}

const sorted = (rows: Rows): string[] =>
  rows.map((row) => JSON.stringify(Object.entries(row).sort(([a], [b]) => a < b ? -1 : 1))).sort();

async function check(database: TestDatabase, history: History, capture: "trigger" | "wal"): Promise<void> {
  const { db, port } = database;
  await install(db);
  if (capture === "wal") await createSlot(db);
  await port.execute(TABLES + (history.hasRows ? ROWS : ""));
  for (const table of NAMES) await track(db, table, { capture });
  const moments: { step: number; time: string; tables: Map<string, Rows> }[] = [];
  const remember = async (step: number): Promise<void> => {
    const tables = new Map<string, Rows>();
    for (const table of NAMES) tables.set(table, await note(port, history.reader, table));
    moments.push({ step, time: await clock(port), tables });
  };
  await remember(-1);
  for (const [step, statements] of history.transactions.entries()) {
    if (step === history.baselineAt) { for (const table of NAMES) await baseline(db, table, { schema }); }
    const committed = await port.transaction(async (tx) => {
      await tx.query("select set_config('bemi.context', $1, true)", [JSON.stringify({ step })]);
      await tx.execute(history.writer);
      for (const sql of statements) await tx.execute(sql);
      return true;
    }).catch((error: unknown) => {
      if (!sqlstateOf(error)) throw error;
      return false;
    });
    if (committed) await remember(step);
  }
  if (capture === "wal") {
    await runWorker({ source: database.url ?? "", mode: history.mode, once: true }).finished;
  }
  const ids = new Map((await port.query<{ step: string; id: string }>(
    `select distinct on (context ->> 'step') context ->> 'step' as step, id::text from ${BEMI}.changes where context ? 'step'`,
  )).map((row) => [Number(row.step), row.id]));

  let previous = moments[0]?.tables;
  for (const { step, time, tables } of moments) {
    const change = ids.get(step);
    // Each row by its key, as well as keys under which there was none at that moment.
    const byKey = (moment: string, one: string): string =>
      `(select primary_key from ${BEMI}.images_as_of('TABLE', ${BEMI}.${moment})
        union select primary_key from ${BEMI}.changes where "table" = 'TABLE' and primary_key is not null) as k,
        lateral ${BEMI}.${one}`;
    const calls: [string, Map<string, Rows> | undefined][] = [
      [`${BEMI}.as_of(null::TABLE, '${time}')`, tables],
      [byKey(`moment_at('${time}')`, `as_of(null::TABLE, '${time}', k.primary_key)`), tables],
    ];
    for (const [edge, expected] of change ? [["after", tables], ["before", previous]] as const : []) {
      const named = `'${change}', '${edge}'`;
      calls.push([`${BEMI}.as_of_change(null::TABLE, ${named})`, expected]);
      calls.push([
        byKey(`moment_of(${named})`, `as_of_change(null::TABLE, ${named}, k.primary_key)`),
        expected,
      ]);
    }
    previous = tables;
    for (const table of NAMES) {
      const numbers = await columns(port, table);
      const fills = new Map((await port.query<{ number: number; fill: string | null }>(
        `select c.number, c.fill #>> '{}' as fill from ${BEMI}.table_columns c join ${BEMI}.tables t on t.id = c.table_id where t.relation = '${table}'::regclass`,
      )).map((row) => [String(row.number), row.fill]));
      for (const [call, expected] of calls) {
        const seen = await read(
          port,
          history.reader,
          `select to_jsonb(r.*) as row from ${call.replaceAll("TABLE", table)} r`,
        )
          .catch((error: unknown) => {
            // Refusing is right only where rows were there that nothing in the log tells of.
            const mayBeUnknown = history.hasRows && (table === "loose" || step < history.baselineAt);
            if (sqlstateOf(error) === "BE001" && mayBeUnknown) return undefined;
            throw error;
          });
        const today = (expected?.get(table) ?? []).map((row) =>
          Object.fromEntries(
            [...numbers].map((
              [name, number],
            ) => [name, number in row ? row[number] : fills.get(number) ?? null]),
          )
        );
        if (seen) expect(sorted(seen), `${table} at ${step}: ${call}`).toEqual(sorted(today));
      }
    }
  }
}

const runs = (numRuns: number): object => ({
  numRuns,
  endOnFailure: Boolean(process.env.FAST),
});

onEachDatabase("as of", (open, server) => {
  test("captured by triggers, each table is at each moment what it was", async () => {
    await fc.assert(
      fc.asyncProperty(histories, async (history) => {
        await using database = await open();
        await check(database, history, "trigger");
      }),
      runs(server === "PGlite" ? 3 : 8),
    );
  }, 600_000);
});

onEachServer("as of, from the WAL", (open) => {
  test("each table is at each moment what it was", async () => {
    await fc.assert(
      fc.asyncProperty(histories, async (history) => {
        await using database = await open();
        await check(database, history, "wal");
      }),
      runs(6),
    );
  }, 600_000);
});
