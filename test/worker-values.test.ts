import fc from "fast-check";
import { inspect } from "node:util";
import { expect, test } from "vitest";
import { BEMI, createSlot, install, runWorker, track } from "./support/installation.ts";
import { onEachServer } from "./support/databases.ts";

// Column types with values that are hard somewhere: each row's image is compared with to_jsonb of the row itself.
const VALUES: Readonly<Record<string, readonly string[]>> = {
  boolean: ["true", "false"],
  smallint: ["-32768"],
  bigint: ["9223372036854775807", "-9223372036854775808"],
  real: ["1.1", "'NaN'", "'-Infinity'", "1e20", "-0.0", "1e-30"],
  "double precision": ["0.1::float8 + 0.2::float8", "'Infinity'", "1e300", "5e-324"],
  numeric: ["1.50", "'NaN'", "123456789012345678901234567890.123456789", "-0.000001", "1e50"],
  money: ["'$1,234.56'"],
  oid: ["4294967295"],
  text: [
    "'plain'",
    "''",
    "E'tab\\tnew\\nline \\\\ \"quote\" '' \\u2028 \\U0001F600'",
    "repeat('long ', 3000)",
  ],
  "char(5)": ["'ab'"],
  varchar: ["'NULL'"],
  name: ["'a name'"],
  bytea: ["'\\x00ff10'", "''"],
  uuid: ["'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"],
  date: ["'2026-02-28'", "'infinity'", "'0044-03-15 BC'", "'12345-01-01'"],
  time: ["'12:34:56.789'", "'24:00'"],
  timetz: ["'12:34:56+05:30'"],
  timestamp: ["'2026-11-01 12:00:00.123456'", "'infinity'", "'-infinity'", "'0044-03-15 01:02:03 BC'"],
  timestamptz: [
    "'2026-11-01 12:00:00.5+02'",
    "'-infinity'",
    "'0044-03-15 01:02:03+00 BC'",
    "'12345-06-07 00:00+00'",
  ],
  interval: ["'1 year 2 mons -3 days 04:05:06.7'"],
  inet: ["'10.0.0.1/8'"],
  cidr: ["'10.0.0.0/8'"],
  macaddr: ["'08:00:2b:01:02:03'"],
  bit: ["B'1'"],
  "varbit(9)": ["B'10101'"],
  xml: ["'<a b=\"c\">d</a>'"],
  json: ['\'{"a": 12345678901234567890, "b": [1.50, null]}\'', "' [1 , 2]\n'", "'null'"],
  jsonb: ["'{\"a\": 12345678901234567890.10}'", "'\"text\"'", "'null'"],
  tsvector: ["'a:1 b:2'"],
  int4range: ["'[1,5)'", "'empty'"],
  tstzrange: ["'[2026-01-01 00:00+00,)'"],
  point: ["'(1,2)'"],
  box: ["'((1,1),(0,0))'"],
  mood: ["'so so'"],
  "int[]": ["'{1,NULL,3}'", "'{}'", "'{{1,2},{3,4}}'", "'[0:1]={7,8}'"],
  "text[]": ["array['a,b', 'c\"d', 'e\\f', 'NULL', null, '', '{}', ' x ']"],
  "timestamptz[]": ["array['2026-01-01 00:00+00'::timestamptz, 'infinity']"],
  "jsonb[]": ["array['{\"a\": \"x,y\"}'::jsonb, 'null']"],
  "boolean[]": ["'{t,f,NULL}'"],
  "box[]": ["array['((1,1),(0,0))'::box, '((2,2),(0,0))']"],
  "mood[]": ["array['so so', 'happy']::mood[]"],
  address: [
    "row('a \"street\", no. 1', null, array['x','y,z'], 1.50)",
    "row(null, null, null, null)",
    "row('', null, '{}', 'NaN')",
    "row('(,)', 0, null, '0.00')",
  ],
  "address[]": ["array[row('a,b', 1, '{q}', 2)::address, null]"],
  positive: ["7"],
  "positive[]": ["'{1,2}'"],
  tags: ["'{a,b}'"],
  hstore: ['\'a=>1, "b c"=>NULL, d=>"x\\"y\\\\z"\'', "''"],
  citext: ["'MiXed'"],
};

onEachServer("values in the log", (open) => {
  test(
    "are what to_jsonb gives, for every type, by INSERT, UPDATE and DELETE",
    { timeout: 240_000 },
    async () => {
      await using database = await open();
      const { db, port } = database;
      await install(db);
      await createSlot(db);
      await port.execute(`
      create extension hstore; create extension citext;
      create type mood as enum ('sad', 'so so', 'happy');
      create type address as (street text, number int, tags text[], price numeric);
      create domain positive as int check (value > 0);
      create domain tags as text[];
      set timezone = 'UTC'`);
      const cases = Object.entries(VALUES).flatMap(([type, values], i) =>
        values.map((value, j) => ({ type, value, table: `v_${i}_${j}` }))
      );
      // First all tables, since each CREATE TABLE has the tracked ones looked at.
      await port.execute(
        cases.map(({ type, table }) => `create table ${table} (id int primary key, "Value x" ${type})`).join(
          "; ",
        ),
      );
      for (const { table } of cases) await track(db, table, { capture: "wal" });
      await port.execute("create table expected (name text, step text, row jsonb)");
      await port.transaction(async (tx) => {
        await tx.execute("set local timezone = 'UTC'");
        for (const { type, value, table } of cases) {
          await tx.execute(`insert into ${table} values (1, (${value})::${type}), (2, null);
          insert into expected select '${table}', 'CREATE', to_jsonb(t.*) from ${table} t where id = 1;
          update ${table} set id = 3 where id = 1;
          insert into expected select '${table}', 'UPDATE', to_jsonb(t.*) from ${table} t where id = 3;
          delete from ${table} where id = 3`);
        }
      });
      await runWorker({ source: database.url, once: true }).finished;
      const wrong = await port.query(`
      select e.name, e.step, e.row::text as expected, c.after::text as found
      from expected e left join ${BEMI}.changes c on c."table" = e.name and c.operation = e.step and c.primary_key <> '2'
      where c.after is distinct from e.row
      union all
      select e.name, 'DELETE', e.row::text, c.before::text
      from expected e left join ${BEMI}.changes c on c."table" = e.name and c.operation = 'DELETE'
      where e.step = 'UPDATE' and c.before is distinct from e.row`);
      expect(
        wrong.map((row) => ({ ...row, type: cases.find((c) => c.table === (row as { name: string }).name) })),
      ).toEqual([]);
      expect(await port.query(`select * from ${BEMI}.set_aside`)).toEqual([]);
    },
  );

  test("are what to_jsonb gives, for any text, JSON, number and nesting of arrays", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    await createSlot(db);
    await port.execute(`
      create type pair as (a text, b text[]);
      create table vs (id int primary key, t text, j json, n numeric, ts text[], p pair, ps pair[])`);
    await track(db, "vs", { capture: "wal" });
    const safe = fc.string({ unit: "binary", maxLength: 12 }).map((s) =>
      Buffer.from(s.replaceAll("\0", "")).toString()
    );
    const hostile = fc.oneof(
      safe,
      fc.constantFrom("NULL", "null", "", "{}", '"', "\\", ",", "(", ")", " ", "\n", "\t", "\\N", "\\."),
    );
    const rows = fc.sample(
      fc.record({
        t: hostile,
        j: fc.json().filter((json) => !/\\u(?:0000|d[89a-f])/i.test(json)),
        n: fc.double({ noNaN: true, noDefaultInfinity: true }).map(String),
        ts: fc.array(fc.option(hostile), { maxLength: 4 }),
      }),
      { numRuns: 200, seed: 7 },
    );
    await port.transaction(async (tx) => {
      for (const [i, row] of rows.entries()) {
        await tx.query(
          `insert into vs select $1::text::int, $2, $3::text::json, $4::text::numeric, a.ts, row($2, a.ts)::pair,
            array[row($2, a.ts)::pair, null, row(null, null)::pair]
          from (select array(select e from jsonb_array_elements_text($5::text::jsonb) with ordinality as x (e, i) order by i) as ts) a`,
          [String(i), row.t, row.j, row.n, JSON.stringify(row.ts)],
        );
      }
    });
    await runWorker({ source: database.url, once: true }).finished;
    expect(
      await port.query(`
      select v.id, to_jsonb(v.*)::text as expected, c.after::text as found
      from vs v left join ${BEMI}.changes c on c."table" = 'vs' and c.primary_key = v.id::text
      where c.after is distinct from to_jsonb(v.*)`),
    ).toEqual([]);
  });

  test("of which the text alone changed are no change, as to_jsonb has it", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    await createSlot(db);
    await port.execute(`
      create type weighed as (j json, n numeric);
      create table vs (id int primary key, j json, n numeric, f float8, js json[], w weighed, t text);
      create table expected (id int, is_same boolean)`);
    await track(db, "vs", { capture: "wal" });
    const texts = [
      ...[null, "null", " null\n", "1", "1.0", "1e0", "10E-1", "-0.0", "0", "0e5", "0.001e5", "100", "1E+2"],
      ...[
        "12345678901234567890",
        "12345678901234567891",
        "12345678901234567890.0",
        '"1"',
        '"n1"',
        '"a"',
        '"\\u0061"',
      ],
      ...['{"a": 1, "b": 2}', '{"b":2.0,"a":1}', '{"a": 3, "a": 1, "b": 2}'],
      ...['{"a": 1, "b": [2, "1e0"]}', '{"a":1,"b":[2.00,"1e0"]}'],
    ];
    const json = fc.constantFrom(...texts);
    const number = fc.constantFrom(
      null,
      "1",
      "1.0",
      "1.00",
      "-0",
      "0.000",
      "NaN",
      "1e20",
      "100000000000000000000",
    );
    const row = fc.record({
      j: json,
      n: number,
      f: number,
      js: fc.array(json, { maxLength: 2 }),
      wj: json,
      wn: number,
      t: fc.constantFrom(null, "1", "1.0", "null"),
    });
    const sampled = fc.sample(
      // Mostly two rows that differ in one column.
      fc.tuple(row, fc.record({ of: fc.constantFrom("j", "n", "f", "js", "wj", "wn", "t"), row })).map(
        ([one, { of, row: other }]) => [one, { ...one, [of]: other[of as keyof typeof other] }] as const,
      ),
      { numRuns: 1000, seed: 11 },
    );
    const blank = { j: null, n: null, f: null, js: [], wj: null, wn: null, t: null };
    const pairs = [
      ...sampled,
      ...texts.flatMap((one) =>
        texts.map((other) => [{ ...blank, j: one }, { ...blank, j: other }] as const)
      ),
    ];
    const columns = `j, n, f, js, w, t) = (select $2::json, $3::text::numeric, $4::text::float8,
      array(select e #>> '{}' from jsonb_array_elements($5::text::jsonb) with ordinality as x (e, i) order by i)::json[],
      row($6::json, $7::text::numeric)::weighed, $8`;
    await port.transaction(async (tx) => {
      for (const [i, pair] of pairs.entries()) {
        const id = String(i);
        await tx.query("insert into vs values ($1::text::int)", [id]);
        for (const { j, n, f, js, wj, wn, t } of pair) {
          await tx.query(
            `with former as (select to_jsonb(vs.*) as image from vs where id = $1::text::int),
              latter as (update vs set (${columns}) where id = $1::text::int returning to_jsonb(vs.*) as image)
            insert into expected select $1::text::int, f.image = l.image from former f, latter l`,
            [id, j, n, f, JSON.stringify(js), wj, wn, t],
          );
        }
      }
    });
    await runWorker({ source: database.url, once: true }).finished;
    const wrong = await port.query<{ id: number }>(`
      select e.id, e.changed, count(c.id)::int as found
      from (select id, count(*) filter (where not is_same) as changed from expected group by id) e
        left join ${BEMI}.changes c on c."table" = 'vs' and c.primary_key = e.id::text and c.operation = 'UPDATE'
      group by e.id, e.changed having count(c.id) <> e.changed`);
    expect(wrong.map(({ id, ...counts }) => ({ ...counts, pair: pairs[Number(id)] }))).toEqual([]);
    const [counts] = await port.query<{ same: number }>(
      "select count(*) filter (where is_same)::int as same from expected",
    );
    expect(counts?.same).toBeGreaterThan(100);
  });

  test.each(["poll", "stream"] as const)(
    "that are not of the type that is known are set aside, the others go on, and a retry keeps their text (%s)",
    async (mode) => {
      await using database = await open();
      const { db, port } = database;
      await install(db);
      await createSlot(db);
      await port.execute(`
        create type spot as (x int, y text, z text);
        create table pins (id int primary key, at spot, ats spot[], note text);
        create table keyed (at spot primary key, note text);
        create table todos (id int primary key)`);
      for (const table of ["pins", "keyed", "todos"]) await track(db, table, { capture: "wal" });
      await port.execute(`
        insert into pins values (1, row(1, 'a', 's3cret,"'), null, 'both'), (2, null, array[row(2, 'b', 'c')::spot], null), (3, null, null, 'fine');
        update pins set note = 'later' where id = 1;
        insert into keyed values (row(7, 'k', 'l'), 'key');
        insert into todos values (1)`);
      // Altered behind the event trigger's back: the catalog of today is taken for what it was.
      const [trigger] = await port.query<{ name: string }>(
        `select evtname as name from pg_event_trigger where evtfoid = '${BEMI}.on_ddl()'::regprocedure`,
      );
      await port.execute(`alter event trigger ${trigger?.name} disable`);
      await port.execute("alter type spot drop attribute z cascade");
      const events: unknown[] = [];
      await runWorker({ source: database.url, mode, once: true, log: (event) => void events.push(event) })
        .finished;
      const logged = (): Promise<unknown[]> =>
        port.query(`
          select "table", primary_key as key, operation, after #>> '{at}' as at, context #> '{db,unreadable}' as unreadable
          from ${BEMI}.changes order by commit_lsn, transaction_index`);
      const fine = (table: string, key: string): object => ({
        table,
        key,
        operation: "CREATE",
        at: null,
        unreadable: null,
      });
      expect(await logged()).toEqual([fine("pins", "3"), fine("todos", "1")]);
      expect(await port.query(`select sqlstate, count(*)::int as count from ${BEMI}.set_aside group by 1`))
        .toEqual([{ sqlstate: "22018", count: 4 }]);
      expect(events).toContainEqual(expect.objectContaining({ kind: "written", setAside: 4 }));
      expect(inspect(events)).not.toContain("s3cret");

      await port.execute("alter type spot add attribute z text cascade");
      expect(await port.query(`select ${BEMI}.retry_set_aside()::int as count`)).toEqual([{ count: 4 }]);
      const pin = { table: "pins", key: "1", at: '(1,a,"s3cret,""")', unreadable: ["at"] };
      expect(await logged()).toEqual([
        { ...pin, operation: "CREATE" },
        { ...fine("pins", "2"), unreadable: ["ats"] },
        fine("pins", "3"),
        { ...pin, operation: "UPDATE" },
        { table: "keyed", key: "(7,k,l)", operation: "CREATE", at: "(7,k,l)", unreadable: ["at"] },
        fine("todos", "1"),
      ]);
      // PostgreSQL reads the text again, as time travel has it.
      expect(
        await port.query(`
          select r.at::text as at, r.ats::text as ats
          from ${BEMI}.changes c, lateral jsonb_populate_record(null::pins, c.after) as r
          where c."table" = 'pins' and c.operation = 'CREATE' and c.context -> 'db' ? 'unreadable' order by c.transaction_index`),
      ).toEqual([{ at: pin.at, ats: null }, { at: null, ats: '{"(2,b,c)"}' }]);
    },
  );
});
