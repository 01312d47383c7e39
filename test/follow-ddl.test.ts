import fc from "fast-check";
import { expect, test } from "vitest";
import type { Database } from "../src/database/port.ts";
import { onEachDatabase } from "./support/databases.ts";
import { BEMI, install } from "./support/installation.ts";

const TABLES = ["a", "b", "c", "d", "e"] as const;

/** A command, from which table and which other one. */
type Command = readonly [command: number, table: number, other: number];

// The tables are in the schema app; whatever fails in PostgreSQL, since there is no such thing then, changes nothing.
const BEGINNING = `
  drop schema if exists app, moved, other cascade;
  create schema app; create schema other; create type app.place as (x int, y text);
  create function app.own() returns trigger language plpgsql as 'begin return null; end';
  create table app.a (id int primary key, part int, place app.place);
  create table app.b (id int primary key references app.a on delete cascade, places app.place[]);
  create table app.c (id int, part int, primary key (id, part)) partition by list (part);
  create table app.d partition of app.c for values in (100);
  create table app.e (extra int) inherits (app.b)`;

const COMMANDS: readonly ((table: string, other: string) => string)[] = [
  (t) => `create table app.${t} (id int primary key, part int, place app.place)`,
  (t) =>
    `create table app.${t} (id int, part int, place app.place, primary key (id, part)) partition by list (part)`,
  (t, o) => `create table app.${t} partition of app.${o} for values in (${t.charCodeAt(0)})`,
  (t, o) =>
    `create table app.${t} partition of app.${o} for values in (${t.charCodeAt(0)}) partition by hash (id)`,
  (t, o) => `create table app.${t} (extra int) inherits (app.${o})`,
  (t, o) =>
    `create table app.${t} (id int primary key references app.${o} on delete cascade, part int, place app.place)`,
  (t, o) => `create table app.${t} as select * from app.${o}`,
  (t, o) => `alter table app.${o} attach partition app.${t} for values in (${t.charCodeAt(0)})`,
  (t, o) => `alter table app.${o} detach partition app.${t}`,
  (t) => `create unlogged table app.${t} (id int primary key, part int, place app.place)`,
  (t, o) => `create unlogged table app.${t} (extra int) inherits (app.${o})`,
  (t, o) => `alter table app.${t} inherit app.${o}`,
  (t, o) => `alter table app.${t} no inherit app.${o}`,
  (t, o) =>
    `alter table app.${t} add constraint up foreign key (id) references app.${o} (id) on update cascade`,
  (t) => `alter table app.${t} drop constraint up`,
  (t) => `alter table app.${t} drop constraint ${t}_pkey cascade`,
  (t) => `alter table app.${t} add primary key (id)`,
  (t) => `create trigger own after insert on app.${t} for each row execute function app.own()`,
  (t) => `create trigger own after insert on app.${t} for each statement execute function app.own()`,
  (t) => `drop trigger own on app.${t}`,
  (t) => `alter table app.${t} disable trigger own`,
  (t) => `alter table app.${t} enable trigger own`,
  () => "drop function app.own() cascade",
  () => "create or replace function app.own() returns trigger language plpgsql as 'begin return null; end'",
  (t) => `alter table app.${t} add column more int generated always as (id * 2) stored`,
  (t) => `alter table app.${t} drop column more cascade`,
  (t) => `alter table app.${t} rename column id to number`,
  (t) => `alter table app.${t} rename column number to id`,
  (t) => `alter table app.${t} alter column part type bigint`,
  (t, o) => `alter table app.${t} rename to ${o}`,
  (t) => `alter table app.${t} set schema other`,
  (t) => `alter table other.${t} set schema app`,
  (t) => `alter table app.${t} replica identity default`,
  (t) => `alter table app.${t} disable trigger all`,
  (t) => `drop table app.${t} cascade`,
  () => "alter type app.place add attribute more int cascade",
  () => "alter type app.place drop attribute more cascade",
  () => "alter type app.place rename attribute x to z cascade",
  () => "drop type app.place cascade",
  () => "create type app.place as (x int, y text)",
  () => "alter schema app rename to moved",
  () => "alter schema moved rename to app",
  () => "drop schema other cascade; create schema other",
];

const command = fc.tuple(fc.nat(COMMANDS.length - 1), fc.nat(TABLES.length - 1), fc.nat(TABLES.length - 1));

onEachDatabase("what follows a command", (open, server) => {
  const captures = server === "PGlite" ? ["trigger"] as const : ["trigger", "wal"] as const;
  test.each(captures)("is what reconcile() would have done (%s)", { timeout: 300_000 }, async (capture) => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    await port.execute(`update ${BEMI}.settings set track_all = true, capture = '${capture}'`);
    let done = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(command, { minLength: 10, maxLength: 30 }), async (commands) => {
        await port.execute(BEGINNING);
        for (const each of commands) {
          if (!await perform(port, each)) continue;
          done++;
          const before = await state(port);
          const changed = await port.query(`select ${BEMI}.reconcile()::text as relation`);
          expect({ changed, state: await state(port) }).toEqual({ changed: [], state: before });
        }
      }),
      { numRuns: 25 },
    );
    expect(done).toBeGreaterThan(100);
  });
});

async function perform(db: Database, [n, t, o]: Command): Promise<boolean> {
  const [table, other] = [TABLES[t] ?? "a", TABLES[o] ?? "b"];
  try {
    await db.execute(COMMANDS[n]?.(table, other) ?? "");
    return true;
  } catch {
    return false;
  }
}

/** What is known of the tracked tables, and whether the worker would read each as it is now. */
async function state(db: Database): Promise<unknown> {
  return await db.query(`
    select t.relation::text, t.root::text, t.schema, t.name, t.capture, t.row_level, t.key_columns::text, t.is_pending,
      (select string_agg(format('%s %s', o.name, o.enabled), ', ' order by o.name) from ${BEMI}.own_triggers o where o.relation = t.relation) as triggers,
      t.capture = 'trigger' or (select v.facts = (select f.facts from ${BEMI}.table_facts(array[t.relation::oid]) f) from ${BEMI}.table_versions v
        where v.relation = t.relation order by v.from_lsn desc limit 1) as is_noted,
      (select string_agg(format('%s %s', c.name, c.dropped_at is null), ', ' order by c.number, c.named_at)
        from ${BEMI}.tables k join ${BEMI}.table_columns c on c.table_id = k.id where k.relation = t.relation) as columns
    from ${BEMI}.tracked_tables t order by 1`);
}
