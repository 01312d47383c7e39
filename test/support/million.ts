import type { Database } from "../../src/database/port.ts";
import { track } from "../../src/install/mod.ts";
import type { DatabaseLike } from "../../src/database/port.ts";
import { quoteSchema } from "../../src/identifiers.ts";

/** How the log was filled: change `i` is on key `i % keys + 1`, `step` microseconds after the one before. */
export interface Filled {
  readonly changes: number;
  readonly keys: number;
  /** The time of the change in the middle. */
  readonly middle: string;
}

/** Fills the log as its owner would, in one statement: todos that are created, then updated again and again. */
export async function fillLog(
  db: DatabaseLike,
  port: Database,
  { schema, changes, keys, days }: {
    readonly schema: string;
    readonly changes: number;
    readonly keys: number;
    /** Until now, and so over several partitions. */
    readonly days: number;
  },
): Promise<Filled> {
  const bemi = quoteSchema(schema);
  const step = Math.floor(days * 86_400_000_000 / changes);
  await port.execute("create table todos (id bigint primary key, task text, n numeric)");
  await track(db, "todos", { schema });
  // As if it had been tracked for as long.
  await port.execute(`create table start as select clock_timestamp() - interval '${days} days' as at;
    select ${bemi}.add_partition(month::date)
    from start, generate_series(date_trunc('month', at at time zone 'UTC'), now() at time zone 'UTC', interval '1 month') as month;
    update ${bemi}.tracked_tables set tracked_at = at from start;
    update ${bemi}.table_names set named_at = at from start;
    update ${bemi}.table_columns set named_at = at from start;
    update ${bemi}.baselines set started_at = at, finished_at = at from start;
    insert into ${bemi}.changes (id, database, schema, "table", primary_key, operation, before, after, context,
      committed_at, queued_at, transaction_id, position, source_id, commit_lsn, transaction_index)
    select ${bemi}.change_id(${bemi}.id_time(at.time)), current_database(), 'public', 'todos', at.id,
      case when i < ${keys} then 'CREATE' else 'UPDATE' end,
      case when i < ${keys} then '{}' else jsonb_build_object('id', at.id::bigint, 'task', 'Task ' || at.id, 'n', i - ${keys}) end,
      jsonb_build_object('id', at.id::bigint, 'task', 'Task ' || at.id, 'n', i),
      jsonb_build_object('user_id', i % 10007, 'endpoint', '/todos'),
      at.time, at.time, 1000 + i / 10, i, at.source, '0/0'::pg_lsn + i, i::bigint * 1024
    from generate_series(0, ${changes} - 1) i, lateral (select (i % ${keys} + 1)::text as id,
      (select s.at from start s) + i * interval '${step} microseconds' as time, (select ${bemi}.current_source('trigger')) as source) as at;
    set bemi.reconciling = 'on';
    alter table todos disable trigger user;
    insert into todos select id, 'Task ' || id, ${changes} - ${keys} + id - 1 from generate_series(1, ${keys}) id;
    alter table todos enable trigger user;
    reset bemi.reconciling;
    select ${bemi}.reconcile()`);
  await port.execute(`vacuum analyze ${bemi}.changes`);
  await port.execute("analyze todos");
  const [row] = await port.query<{ middle: string }>(
    `select (at + ${Math.floor(changes / 2)} * interval '${step} microseconds')::text as middle from start`,
  );
  return { changes, keys, middle: row?.middle ?? "" };
}
