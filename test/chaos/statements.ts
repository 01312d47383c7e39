import type postgres from "postgres";
import type { Random } from "./random.ts";

/** Is told of each change that a statement made. */
export type Note = (operation: string, table: string, key: unknown) => void;

/** What a client writes with. */
export interface Pen {
  readonly tx: postgres.TransactionSql;
  readonly who: number;
  readonly next: Random;
  readonly note: Note;
}

/** Writes something, in rows of the client's own. */
export async function statement(pen: Pen): Promise<void> {
  const { tx, who, next, note } = pen;
  const id = who * 1000 + next(30);
  switch (next(20)) {
    case 0: {
      const lines = await tx`select number from lines where item = ${id}`;
      for (const row of await tx`delete from items where id = ${id} returning id`) {
        note("DELETE", "items", row.id);
        for (const { number } of lines) note("DELETE", "lines", `[${id}, ${number}]`);
      }
      return;
    }
    case 1: {
      for (
        const row of await tx`insert into lines select id, ${next(1000)}, 'line' from items where id = ${id}
        on conflict do nothing returning item, number`
      ) note("CREATE", "lines", `[${row.item}, ${row.number}]`);
      return;
    }
    case 2: {
      const count = 1 + next(50);
      const at = 100_000 * who + next(50_000);
      const rows =
        await tx`insert into parts select n, 1 + n % 2, repeat('x', 500) from generate_series(${at}::int, ${
          at + count
        }::int) n
        on conflict do nothing returning id, region`;
      for (const row of rows) note("CREATE", "parts", `[${row.id}, ${row.region}]`);
      return;
    }
    case 3: {
      const rows = await tx`update parts p set region = 3 - p.region from (
          select id, region from parts where id between ${100_000 * who} and ${
        100_000 * who + 99_999
      } order by id limit 5) as o
        where p.id = o.id and p.region = o.region and not exists (select from parts c where c.id = p.id and c.region = 3 - p.region)
        returning p.id, p.region`;
      for (const row of rows) note("UPDATE", "parts", `[${row.id}, ${row.region}]`);
      return;
    }
    case 4: {
      for (const _ of await tx`insert into notes values (${who}, ${String(next(5))}) returning 1`) {
        note("CREATE", "notes", null);
      }
      return;
    }
    case 5: {
      for (const _ of await tx`delete from notes where who = ${who} and v = ${String(next(5))} returning 1`) {
        note("DELETE", "notes", null);
      }
      return;
    }
    case 6: {
      const table = `scratch_${who}`;
      const count = 1 + next(200);
      const at = next(1_000_000);
      await tx.unsafe(`truncate ${table}`);
      note("TRUNCATE", table, null);
      const copy = await tx.unsafe(`copy ${table} from stdin`).writable();
      await new Promise<void>((done, fail) => {
        copy.on("error", fail).on("finish", () => done());
        copy.end(Array.from({ length: count }, (_, n) => `${at + n}\n`).join(""));
      });
      for (let n = 0; n < count; n++) note("CREATE", table, at + n);
      return;
    }
    case 7:
      return await savepoints(pen);
    case 8: {
      for (
        const row of await tx`update items set id = ${who * 1000 + 500 + next(400)} where id = ${id}
        and not exists (select from lines where item = ${id})
        and not exists (select from items where id between ${who * 1000 + 500} and ${
          who * 1000 + 999
        }) returning id, n`
      ) {
        note("UPDATE", "items", row.id);
        if (row.n % 5 === 1) note("CREATE", "audits", "?");
      }
      return;
    }
    case 9:
      return await definition(pen);
    case 10:
      return await bulk(pen);
    default: {
      const [row] = await tx`insert into items values (${id}, ${"v".repeat(next(3000))}) on conflict (id)
        do update set v = excluded.v, n = items.n + 1 returning n, xmax::text <> '0' as updated`;
      note(row?.updated ? "UPDATE" : "CREATE", "items", id);
      if (row?.updated && row.n % 5 === 1) note("CREATE", "audits", "?");
    }
  }
}

/** What is rolled back leaves nothing, its context neither; what is released stays. */
async function savepoints({ tx, who, next, note }: Pen): Promise<void> {
  await tx.unsafe(`savepoint s; select set_config('bemi.context', '{"marker": "nobody"}', true);
    insert into notes select ${who}, 'undone' from generate_series(1, 20);
    update items set v = 'undone' where id between ${who * 1000} and ${who * 1000 + 999}; rollback to s`);
  const count = 1 + next(3);
  await tx.unsafe(
    `savepoint t; insert into notes select ${who}, 'kept' from generate_series(1, ${count}); release t`,
  );
  for (let n = 0; n < count; n++) note("CREATE", "notes", null);
  if (next(2) === 0) await tx.unsafe("release s");
}

/** The table changes between the rows of one transaction. */
async function definition({ tx, who, next, note }: Pen): Promise<void> {
  const table = `shapes_${who}`;
  const [first, column] = [next(1_000_000_000), `c${next(1_000_000)}`];
  const [row] = await tx.unsafe(
    `insert into ${table} values (${first}, 'a') on conflict do nothing returning id`,
  );
  if (!row) return;
  note("CREATE", table, first);
  await tx.unsafe(`alter table ${table} add column ${column} int default 7`);
  await tx.unsafe(`update ${table} set v = 'b', ${column} = 8 where id = ${first}`);
  note("UPDATE", table, first);
  await tx.unsafe(`alter table ${table} alter column v type varchar(${10 + next(90)})`);
  await tx.unsafe(`alter table ${table} rename column ${column} to ${column}_b`);
  await tx.unsafe(`update ${table} set v = 'c' where id = ${first}`);
  note("UPDATE", table, first);
  await tx.unsafe(`alter table ${table} drop column ${column}_b`);
  for (const { id } of await tx.unsafe(`delete from ${table} where id <> ${first} returning id`)) {
    note("DELETE", table, id);
  }
}

/** Hundreds of rows by one statement. */
async function bulk({ tx, who, next, note }: Pen): Promise<void> {
  const table = `bulks_${who}`;
  switch (next(4)) {
    case 0:
      for (const { id } of await tx.unsafe(`delete from ${table} returning id`)) note("DELETE", table, id);
      return;
    case 1:
      for (const { id } of await tx.unsafe(`update ${table} set n = n + 1 returning id`)) {
        note("UPDATE", table, id);
      }
      return;
    default: {
      const at = next(1_000_000);
      const rows = await tx.unsafe(
        `insert into ${table} select n, 0 from generate_series(${at}, ${at + next(400)}) n
        where (select count(*) from ${table}) < 800 on conflict do nothing returning id`,
      );
      for (const { id } of rows) note("CREATE", table, id);
    }
  }
}
