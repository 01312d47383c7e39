import postgres from "postgres";
import { inTransaction } from "../../src/worker/sql.ts";
import { pause } from "./proxy.ts";
import { random } from "./random.ts";

/** What the clients write: keys, a cascade, a table without a key, partitions with moves, a trigger into another table. */
export const TABLES = `
  create table items (id int primary key, v text, n int not null default 0);
  create table lines (item int references items on delete cascade, number int, v text, primary key (item, number));
  create table notes (who int, v text);
  create table parts (id int, region int, v text, primary key (id, region)) partition by list (region);
  create table parts_1 partition of parts for values in (1);
  create table parts_2 partition of parts for values in (2);
  create table scratch_1 (id int primary key);
  create table scratch_2 (id int primary key);
  create table scratch_3 (id int primary key);
  create table scratch_4 (id int primary key);
  create table commits (xid text, who int, number int, primary key (who, number));
  create table audits (id bigint generated always as identity primary key, item int);
  create function audit() returns trigger language plpgsql as $$ begin
    insert into audits (item) values (new.id); return null; end $$;
  create trigger audit after update on items for each row when (new.n % 5 = 1) execute function audit();`;

export const NAMES: readonly string[] = [
  "items",
  "lines",
  "notes",
  "parts",
  "audits",
  "scratch_1",
  "scratch_2",
  "scratch_3",
  "scratch_4",
];

/** What one transaction did, if it committed: `operation table key marker` of each change. */
export interface Entry {
  readonly xid: string;
  /** `who.number`, which is in the table `commits` if it did. */
  readonly name: string;
  readonly changes: readonly string[];
}

export interface ClientOptions {
  readonly url: string;
  readonly who: number;
  readonly seed: number;
  readonly isRunning: () => boolean;
  readonly isPaused: () => boolean;
}

/** Writes until told to end, in rows of its own, and returns its journal. */
export async function client(options: ClientOptions): Promise<Entry[]> {
  const { url, who, seed, isRunning, isPaused } = options;
  const next = random(seed * 31 + who);
  const journal: Entry[] = [];
  let transaction = 0;
  while (isRunning()) {
    const sql = postgres(url, { max: 1, fetch_types: false, onnotice() {}, connect_timeout: 3 });
    try {
      for (let i = 0; i < 40 && isRunning(); i++) {
        while (isPaused() && isRunning()) await pause(20);
        transaction++;
        await inTransaction(sql, async (connection) => {
          const tx = connection as unknown as postgres.TransactionSql;
          const [{ xid } = { xid: "" }] = await tx<
            { xid: string }[]
          >`select pg_current_xact_id()::text as xid`;
          const changes: string[] = [];
          // Noted before it commits: whether it did is seen in the end, by a row of its own, for a crash can give its
          // number to another.
          journal.push({ xid, name: `${who}.${transaction}`, changes });
          await tx`insert into commits values (${xid}, ${who}, ${transaction})`;
          for (let n = 0; n <= next(5); n++) {
            const marker = `${who}.${transaction}.${n}`;
            await tx`select set_config('bemi.context', ${JSON.stringify({ marker })}, true)`;
            const note = (operation: string, table: string, key: unknown): void =>
              void changes.push(`${operation} ${table} ${key === null ? null : String(key)} ${marker}`);
            await statement(tx, who, next, note);
          }
          if (next(8) === 0) throw new Error("abort");
        }).catch((error: Error) => {
          if (error.message !== "abort") throw error;
        });
      }
    } catch {
      // The server is away, full, or did not like two at once: another connection.
      await pause(100 + next(200));
    } finally {
      await sql.end({ timeout: 1 });
    }
  }
  return journal;
}

type Note = (operation: string, table: string, key: unknown) => void;

async function statement(
  tx: postgres.TransactionSql,
  who: number,
  next: (n: number) => number,
  note: Note,
): Promise<void> {
  const id = who * 1000 + next(30);
  switch (next(12)) {
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
      await tx.unsafe(`savepoint s; select set_config('bemi.context', '{"marker": "nobody"}', true);
        insert into notes select ${who}, 'undone' from generate_series(1, 20); rollback to s`);
      return;
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
    default: {
      const [row] = await tx`insert into items values (${id}, ${"v".repeat(next(3000))}) on conflict (id)
        do update set v = excluded.v, n = items.n + 1 returning n, xmax::text <> '0' as updated`;
      note(row?.updated ? "UPDATE" : "CREATE", "items", id);
      if (row?.updated && row.n % 5 === 1) note("CREATE", "audits", "?");
    }
  }
}
