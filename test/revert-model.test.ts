import fc from "fast-check";
import { expect, test } from "vitest";
import { revert } from "../src/history/mod.ts";
import { waitForWorker } from "../src/history/worker-lag.ts";
import { baseline } from "../src/install/mod.ts";
import { createSlot, install, runWorker, SCHEMA, track } from "./support/installation.ts";
import { onEachDatabase, onEachServer, type TestDatabase } from "./support/databases.ts";

// Keys that change, cascade, lead back to their own table or are composite; a counter kept by a trigger, a unique
// value, a generated one, an identity, a table without a key.
const TABLES = ["parents", "children", "trees", "pairs", "loose", "parts"];
const SETUP = `
  create table parents (id int primary key, name text unique, amount int not null default 0);
  create table children (id int primary key, parent_id int references parents on update cascade on delete cascade,
    n numeric, doubled numeric generated always as (n * 2) stored);
  create table trees (id int generated always as identity primary key, up int references trees on delete set null, label text);
  create table pairs (a int, b text, note jsonb, primary key (a, b) deferrable);
  create table loose (n int, t text);
  create table parts (id int, at int, note text, primary key (id, at)) partition by range (at);
  create table parts_low partition of parts for values from (0) to (3);
  create table parts_high partition of parts for values from (3) to (100);
  create function count_children() returns trigger language plpgsql as $$ begin
    if tg_op <> 'INSERT' then update parents set amount = amount - 1 where id = old.parent_id; end if;
    if tg_op <> 'DELETE' then update parents set amount = amount + 1 where id = new.parent_id; end if;
    return null; end $$;
  create trigger count_children after insert or delete or update of parent_id on children
    for each row execute function count_children();
  create function count_none() returns trigger language plpgsql as $$ begin
    update parents set amount = 0; return null; end $$;
  create trigger count_none after truncate on children for each statement execute function count_none();`;

const id = fc.integer({ min: 1, max: 5 });
const word = fc.constantFrom("a", "b", "c", "d");
const statement: fc.Arbitrary<string> = fc.oneof(
  fc.tuple(id, word).map(([i, w]) => `insert into parents (id, name) values (${i}, '${w}')`),
  fc.tuple(id, id).map(([i, j]) => `update parents set id = ${j} where id = ${i}`),
  fc.tuple(id, word).map(([i, w]) => `update parents set name = '${w}' where id = ${i}`),
  id.map((i) => `delete from parents where id = ${i}`),
  fc.tuple(id, id).map(([i, j]) =>
    `insert into children (id, parent_id, n) values (${i}, ${j}, ${i}.50) on conflict (id) do update set n = ${j}.0`
  ),
  fc.tuple(id, id).map(([i, j]) => `update children set parent_id = ${j}, n = n + 0.10 where id = ${i}`),
  id.map((i) => `delete from children where id = ${i}`),
  id.map((i) => `insert into trees (up, label) select max(id), '${i}' from trees`),
  fc.tuple(id, id).map(([i, j]) => `update trees set up = ${j} where id = ${i}`),
  id.map((i) => `delete from trees where id = ${i}`),
  fc.tuple(id, word).map(([i, w]) =>
    `insert into pairs values (${i}, '${w}', '{"n": [${i}.0, null, "\\u00e9"]}')`
  ),
  fc.tuple(id, word).map(([i, w]) => `update pairs set a = a + 1, note = '"${w}"' where a >= ${i}`),
  fc.constant("delete from pairs where a > 3"),
  fc.tuple(id, word).map(([i, w]) =>
    `insert into loose select i, '${w}' from generate_series(1, ${i} % 3) i`
  ),
  fc.tuple(id, word).map(([i, w]) =>
    `update loose set t = '${w}' where ctid = (select min(ctid) from loose where n <= ${i})`
  ),
  fc.constant("delete from loose where ctid = (select max(ctid) from loose)"),
  fc.tuple(id, id).map(([i, j]) => `insert into parts values (${i}, ${j}, 'new')`),
  fc.tuple(id, id).map(([i, j]) => `update parts set at = ${j}, note = 'moved' where id = ${i}`),
  id.map((i) => `delete from parts where id = ${i}`),
  fc.constantFrom(
    "truncate children",
    "truncate parents cascade",
    "truncate pairs",
    "truncate loose",
    "truncate parts",
  ),
);
const history = fc.record({
  transactions: fc.array(fc.array(statement, { minLength: 1, maxLength: 5 }), { minLength: 2, maxLength: 6 }),
  back: fc.nat(5),
});

async function setUp(database: TestDatabase, capture: "trigger" | "wal"): Promise<void> {
  await install(database.db);
  if (capture === "wal") await createSlot(database.db);
  await database.port.execute(SETUP);
  for (const table of TABLES) {
    await track(database.db, table, { capture });
    await baseline(database.db, table, { schema: SCHEMA });
  }
}

/** Runs what it can of some statements as one transaction, and returns its number; `null` if it wrote nothing. */
async function run({ port }: TestDatabase, statements: readonly string[]): Promise<string | null> {
  return await port.transaction(async (tx) => {
    for (const sql of statements) {
      await tx.execute(
        `do $do$ begin ${sql}; exception when integrity_constraint_violation then null; end $do$`,
      );
    }
    await tx.execute("set constraints all immediate");
    const [row] = await tx.query<{ id: string | null }>(
      "select pg_current_xact_id_if_assigned()::text as id",
    );
    return row?.id ?? null;
  });
}

async function snapshot({ port }: TestDatabase): Promise<string> {
  const [row] = await port.query<{ all: string }>(
    `select json_build_object(${
      TABLES.map((table) =>
        `'${table}', (select json_agg(t.r order by t.r) from (select to_jsonb(${table}.*)::text as r from ${table}) t)`
      )
        .join(", ")
    })::text as "all"`,
  );
  return row?.all ?? "";
}

/** Back by a suffix of the history, transaction by transaction, and forth again. */
async function there(
  database: TestDatabase,
  { transactions, back }: { transactions: string[][]; back: number },
): Promise<void> {
  const snapshots = [await snapshot(database)];
  const numbers: (string | null)[] = [];
  for (const statements of transactions) {
    numbers.push(await run(database, statements));
    snapshots.push(await snapshot(database));
  }
  const known = await logged(database);
  const to = Math.max(0, transactions.length - 1 - back);
  const reverts: string[] = [];
  for (let i = transactions.length - 1; i >= to; i--) {
    const number = numbers[i] ?? "";
    if (known.has(number)) {
      const { transaction } = await revert(database.db, { transaction: number }, { schema: SCHEMA });
      if (transaction !== null) reverts.push(transaction);
    }
    expect(await snapshot(database)).toBe(snapshots[i]);
  }
  const undone = await logged(database);
  for (const transaction of reverts.reverse()) {
    if (undone.has(transaction)) await revert(database.db, { transaction }, { schema: SCHEMA });
  }
  expect(await snapshot(database)).toBe(snapshots.at(-1));
}

// A transaction that changed nothing, or only locked rows, is not in the log.
async function logged({ port }: TestDatabase): Promise<Set<string>> {
  await waitForWorker(port, { schema: SCHEMA, wait: 60_000 });
  const rows = await port.query<{ id: string }>(
    `select distinct transaction_id::text as id from "${SCHEMA}".changes where operation <> 'SNAPSHOT'`,
  );
  return new Set(rows.map(({ id }) => id));
}

const check = (database: TestDatabase, numRuns: number): Promise<void> =>
  fc.assert(fc.asyncProperty(history, (given) => there(database, given)), {
    numRuns,
    ...(process.env.SEED ? { seed: Number(process.env.SEED) } : {}),
  });

onEachDatabase("reverting a suffix of any history, by triggers", (open, server) => {
  test(
    "gives back the earlier state, and reverting the reverts the later one",
    { timeout: 600_000 },
    async () => {
      await using database = await open();
      await setUp(database, "trigger");
      await check(database, Number(process.env.RUNS ?? (server === "PGlite" ? 15 : 50)));
    },
  );
});

onEachServer("reverting a suffix of any history, from the WAL", (open) => {
  test(
    "gives back the earlier state, and reverting the reverts the later one",
    { timeout: 600_000 },
    async () => {
      await using database = await open();
      await setUp(database, "wal");
      await using worker = runWorker({ source: database.url });
      await check(database, Number(process.env.RUNS ?? 15));
      await worker.stop();
    },
  );
});
