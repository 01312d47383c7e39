import postgres from "postgres";
import { inTransaction } from "../../src/worker/sql.ts";
import { pause } from "./deadline.ts";
import { random } from "./random.ts";
import { statement } from "./statements.ts";

export const CLIENTS: readonly number[] = [1, 2, 3, 4];

/** What the clients write: keys, a cascade, a table without a key, partitions with moves, a trigger into another table. */
export const TABLES: string = `
  create table items (id int primary key, v text, n int not null default 0);
  create table lines (item int references items on delete cascade, number int, v text, primary key (item, number));
  create table notes (who int, v text);
  create table parts (id int, region int, v text, primary key (id, region)) partition by list (region);
  create table parts_1 partition of parts for values in (1);
  create table parts_2 partition of parts for values in (2);
  create table commits (xid text, who int, number int, primary key (who, number));
  create table audits (id bigint generated always as identity primary key, item int);
  create function audit() returns trigger language plpgsql as $$ begin
    insert into audits (item) values (new.id); return null; end $$;
  create trigger audit after update on items for each row when (new.n % 5 = 1) execute function audit();
  ${
  CLIENTS.map((who) => `
  create table scratch_${who} (id int primary key);
  create table shapes_${who} (id int primary key, v text);
  create table bulks_${who} (id int primary key, n int);`).join("")
}`;

export const NAMES: readonly string[] = [
  "items",
  "lines",
  "notes",
  "parts",
  "audits",
  ...CLIENTS.flatMap((who) => [`scratch_${who}`, `shapes_${who}`, `bulks_${who}`]),
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
  /** Milliseconds between two transactions, on average. */
  readonly lull: number;
}

export interface Client {
  /** What it noted, when it has ended. */
  readonly journal: Promise<Entry[]>;
  /** Transactions so far. */
  readonly count: number;
  /** Whether it is between two connections or two transactions, and held there. */
  readonly isHeld: boolean;
}

/** No transaction takes so long: the driver has lost its answer. */
const LOST_AFTER = 60_000;

/** Writes until told to end, in rows of its own. */
export function startClient(options: ClientOptions): Client {
  const { url, who, seed, isRunning, isPaused, lull } = options;
  const next = random(seed * 31 + who);
  const entries: Entry[] = [];
  let count = 0;
  let isHeld = false;
  const transaction = async (tx: postgres.TransactionSql): Promise<void> => {
    const [{ xid } = { xid: "" }] = await tx<{ xid: string }[]>`select pg_current_xact_id()::text as xid`;
    const changes: string[] = [];
    // Noted before it commits: whether it did is seen in the end, by a row of its own, for a crash can give its
    // number to another.
    entries.push({ xid, name: `${who}.${count}`, changes });
    await tx`insert into commits values (${xid}, ${who}, ${count})`;
    for (let n = 0; n <= next(5); n++) {
      const marker = next(10) === 0 ? null : `${who}.${count}.${n}`;
      const context = marker === null ? "" : JSON.stringify({ marker });
      await tx`select set_config('bemi.context', ${context}, true)`;
      const note = (operation: string, table: string, key: unknown): void =>
        void changes.push(`${operation} ${table} ${key === null ? null : String(key)} ${marker}`);
      await statement({ tx, who, next, note });
    }
    if (next(8) === 0) throw new Error("abort");
  };
  const run = async (): Promise<Entry[]> => {
    while (isRunning()) {
      const sql = postgres(url, { max: 1, fetch_types: false, onnotice() {}, connect_timeout: 3 });
      try {
        for (let i = 0; i < 40 && isRunning(); i++) {
          isHeld = true;
          if (lull > 0) await pause(next(2 * lull));
          while (isPaused() && isRunning()) await pause(20);
          isHeld = false;
          count++;
          await answered(inTransaction(sql, (tx) => transaction(tx as unknown as postgres.TransactionSql)))
            .catch((error: Error) => {
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
    isHeld = true;
    return entries;
  };
  return {
    journal: run(),
    get count() {
      return count;
    },
    get isHeld() {
      return isHeld;
    },
  };
}

async function answered(running: Promise<void>): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const lost = new Promise<never>((_, fail) => {
    timer = setTimeout(() => fail(new Error("No answer")), LOST_AFTER);
  });
  try {
    await Promise.race([running, lost]);
  } finally {
    clearTimeout(timer);
  }
}
