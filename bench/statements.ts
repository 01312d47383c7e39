import postgres from "postgres";
import { install, track } from "@bemi/core/install";
import { createSlot } from "@bemi/core/worker";
import { startServer } from "../test/support/servers.ts";
import { compare, cpuClock, type Subject, tell } from "./measure.ts";

const LOOPS = 5_000;
const BULK = 100_000;

// `bare` logs whole old rows as `by_wal` does, so that what is compared is the context message alone.
const TABLES = ["bare", "by_wal", "polled", "by_trigger", "by_row_trigger", "by_indexed"].map((name) => `
  create table ${name} (id int primary key, task text, is_completed boolean not null default false, list_id int);
  create procedure loop_${name}(n int, target int) language plpgsql as $$ begin for i in 1..n loop
    perform set_config('bemi.context', '{"user_id": 42, "endpoint": "/todos"}', true);
    update ${name} set is_completed = not is_completed where id = target * i;
    commit;
  end loop; end $$;`).join("") + `
  alter table bare replica identity full;
  create procedure loop_floor(n int) language plpgsql as $$ begin for i in 1..n loop
    perform set_config('bemi.context', '{"user_id": 42, "endpoint": "/todos"}', true);
    update bare set is_completed = not is_completed where id = i;
    insert into bemi.changes (id, database, schema, "table", primary_key, operation, before, after, context, committed_at,
      queued_at, transaction_id, position, source_id, commit_lsn, transaction_index)
    values (gen_random_uuid(), 'postgres', 'public', 'bare', i::text, 'UPDATE',
      '{"id": 1, "task": "todo number 1", "list_id": 1, "is_completed": false}',
      '{"id": 1, "task": "todo number 1", "list_id": 1, "is_completed": true}',
      '{"db": {"pid": 6660, "role": "postgres", "user": "postgres", "application_name": ""}, "user_id": 42, "endpoint": "/todos"}',
      now(), now(), 1, 1, 1, '0/1', i);
    commit;
  end loop; end $$;
  create table plain_log (at timestamptz not null default now(), "table" text, operation text, before jsonb, after jsonb);
  create function log_row() returns trigger language plpgsql as $$ begin
    insert into plain_log ("table", operation, before, after) values (tg_table_name, tg_op, to_jsonb(old), to_jsonb(new));
    return null;
  end $$;
  create trigger log_row after insert or update or delete on by_row_trigger for each row execute function log_row();
  create table indexed_log (like bemi.changes including all);
  create function log_indexed() returns trigger language plpgsql as $$ begin
    insert into indexed_log (id, database, schema, "table", primary_key, operation, before, after, context, committed_at,
      queued_at, transaction_id, position, source_id, commit_lsn, transaction_index)
    values (gen_random_uuid(), current_database(), tg_table_schema, tg_table_name, new.id::text, tg_op,
      coalesce(to_jsonb(old), '{}'), to_jsonb(new), coalesce(nullif(current_setting('bemi.context', true), ''), '{}')::jsonb,
      clock_timestamp(), clock_timestamp(), txid_current(), 0, 1, pg_current_wal_insert_lsn(), 0);
    return null;
  end $$;
  create trigger log_indexed after insert or update on by_indexed for each row execute function log_indexed();
  create table counted (id int);
  create table counted_by_wal (id int);
  create function count_bare() returns trigger language plpgsql as $$ begin insert into counted values (new.id); return null; end $$;
  create function count_by_wal() returns trigger language plpgsql as $$ begin insert into counted_by_wal values (new.id); return null; end $$;`;

/** What the application's statements pay, measured in the server: by the WAL and by triggers. */
export async function statements(version: string): Promise<void> {
  const server = await startServer(version, ["fsync=on", "max_wal_size=8GB", "synchronous_commit=off"]);
  const sql = postgres(server.url(), { max: 1, onnotice() {} });
  try {
    await install(sql);
    await createSlot(sql);
    await sql.unsafe(TABLES);
    await track(sql, "by_wal", { capture: "wal" });
    await track(sql, "polled", { capture: "wal", polled: true });
    await track(sql, "by_trigger", { capture: "trigger" });

    const fill = async (table: string, rows: number): Promise<void> => {
      await sql.unsafe(
        `truncate ${table}; begin; set local bemi.maintenance = 'on'; truncate bemi.changes; commit;
        insert into ${table} select n, 'todo number ' || n, false, n % 100 from generate_series(1, ${rows}) n`,
      );
      await sql.unsafe(
        `begin; set local bemi.maintenance = 'on'; truncate bemi.changes; commit; truncate plain_log, indexed_log`,
      );
      await sql.unsafe(`vacuum analyze ${table}`);
      await sql.unsafe("checkpoint");
    };
    const subject = (name: string, table: string, filled: number, units: number, text: string): Subject => ({
      name,
      isHeadline: /tracked (from|by)/.test(name),
      prepare: () => fill(table, filled),
      run: async () => {
        await sql.unsafe(text);
        return units;
      },
    });
    const loop = (name: string, table: string, target: 0 | 1): Subject =>
      subject(name, table, LOOPS, LOOPS, `call loop_${table}(${LOOPS}, ${target})`);
    const update = (table: string): string => `update ${table} set is_completed = true`;
    const insert = (table: string): string =>
      `insert into ${table} select n, 'todo number ' || n, false, n % 100 from generate_series(1, ${BULK}) n`;
    const values = (table: string): string =>
      `insert into ${table} values ${
        Array.from({ length: 20_000 }, (_, i) => `(${i}, 'todo ${i}', false, 1)`).join()
      }`;
    // The backend's CPU time, which others at work on the machine hardly change.
    const title = (what: string): string => `${what}, PostgreSQL ${version}, CPU time`;
    const [backend] = await sql<{ pid: number }[]>`select pg_backend_pid() as pid`;
    const byTime = { byTime: true, rounds: 7, clock: cpuClock(backend?.pid ?? 0) };

    await compare(title("single-row UPDATE and commit in a procedure that sets the context"), [
      loop("untracked, replica identity full", "bare", 1),
      loop("tracked from the WAL", "by_wal", 1),
      loop("tracked by triggers", "by_trigger", 1),
      subject(
        "untracked, and a row of constants put into the log",
        "bare",
        LOOPS,
        LOOPS,
        `call loop_floor(${LOOPS})`,
      ),
      loop("a plain row trigger, without context or index", "by_row_trigger", 1),
      loop("a plain row trigger, with the context and the log's indexes", "by_indexed", 1),
    ], { ...byTime, unit: "transactions/s" });
    await compare(title("UPDATE that matches nothing, and commit"), [
      loop("untracked", "bare", 0),
      loop("tracked from the WAL", "by_wal", 0),
      loop("tracked from the WAL, as polled", "polled", 0),
    ], { ...byTime, unit: "transactions/s" });
    for (const [what, filled, text] of [["UPDATE", BULK, update], ["INSERT", 0, insert]] as const) {
      await compare(title(`${what} of ${BULK.toLocaleString("en")} rows`), [
        subject("untracked, replica identity full", "bare", filled, BULK, text("bare")),
        subject("tracked from the WAL", "by_wal", filled, BULK, text("by_wal")),
      ], byTime);
      // The floor: the statement, and the very rows that are recorded of it put into the same log.
      await fill("by_trigger", filled);
      await sql.unsafe(text("by_trigger"));
      await sql.unsafe("drop table if exists recorded; create table recorded as select * from bemi.changes");
      await compare(title(`${what} of ${BULK.toLocaleString("en")} rows`), [
        subject(
          "untracked, and the same rows put into the log",
          "bare",
          filled,
          BULK,
          `begin; ${text("bare")}; insert into bemi.changes select * from recorded; commit`,
        ),
        subject("tracked by triggers", "by_trigger", filled, BULK, text("by_trigger")),
        subject(
          "a plain row trigger, without context or index",
          "by_row_trigger",
          filled,
          BULK,
          text("by_row_trigger"),
        ),
        subject(
          "a plain row trigger, with the context and the log's indexes",
          "by_indexed",
          filled,
          BULK,
          text("by_indexed"),
        ),
      ], byTime);
    }
    await compare(title("one INSERT of 20,000 VALUES"), [
      subject("untracked, replica identity full", "bare", 0, 20_000, values("bare")),
      subject("tracked from the WAL", "by_wal", 0, 20_000, values("by_wal")),
    ], byTime);
    await sql.unsafe(`create trigger counted after insert on bare for each row execute function count_bare();
      create trigger counted after insert on by_wal for each row execute function count_by_wal()`);
    await track(sql, "counted_by_wal", { capture: "wal" });
    await compare(title("the same with a row trigger that writes another table"), [
      subject("untracked", "bare", 0, 20_000, values("bare")),
      subject("both tracked from the WAL", "by_wal", 0, 20_000, values("by_wal")),
    ], byTime);
    await walBytes(sql);
  } finally {
    await sql.end();
    await server.remove();
  }
}

/** Bytes of WAL for each of many single-row UPDATEs with a commit, without the pages that a checkpoint adds. */
async function walBytes(sql: postgres.Sql): Promise<void> {
  console.log("\nWAL bytes of a single-row UPDATE and its commit");
  await sql.unsafe("alter system set full_page_writes = off");
  await sql.unsafe("select pg_reload_conf()");
  await sql.unsafe("select pg_sleep(1)");
  let baseline = "";
  for (
    const [name, table, identity] of [
      ["untracked", "bare", "default"],
      ["untracked, replica identity full", "bare", "full"],
      ["tracked from the WAL", "by_wal", "full"],
    ] as const
  ) {
    await sql.unsafe(`alter table ${table} replica identity ${identity}`);
    const position = async (): Promise<bigint> => {
      const [row] = await sql<{ at: string }[]>`select (pg_current_wal_insert_lsn() - '0/0')::text as at`;
      return BigInt(row?.at ?? 0);
    };
    const before = await position();
    await sql.unsafe(`call loop_${table}(1000, 1)`);
    const bytes = (await position() - before) / 1000n;
    console.log(`  ${String(bytes).padStart(5)}  ${name}`);
    const title = "WAL of a single-row UPDATE and its commit";
    if (table === "bare") baseline = `${name}: ${bytes} bytes`;
    else tell(title, name, `${bytes} bytes`, baseline);
  }
}
