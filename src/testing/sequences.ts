import type { Database } from "../database/port.ts";
import { quoteLiteral } from "../identifiers.ts";

/** Where a sequence stood. */
export interface SequenceState {
  /** As in SQL, with its schema. */
  readonly name: string;
  /** Its last value. */
  readonly value: string;
  /** Whether that was given out. */
  readonly isCalled: boolean;
}

/** All sequences of the application. */
export async function readSequences(db: Database, schema: string): Promise<SequenceState[]> {
  const names = await db.query<{ name: string }>(
    `select format('%I.%I', n.nspname, c.relname) as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind = 'S' and c.relpersistence <> 't' and n.nspname <> $1::text order by 1`,
    [schema],
  );
  if (names.length === 0) return [];
  return await db.query<SequenceState>(
    names.map(({ name }) =>
      `select ${quoteLiteral(name)} as name, last_value::text as value, is_called as "isCalled" from ${name}`
    ).join(" union all "),
  );
}

/** Sets sequences back, or forth; those that are gone are left out. */
export async function restoreSequences(db: Database, sequences: readonly SequenceState[]): Promise<void> {
  if (sequences.length === 0) return;
  await db.query(
    `select setval(to_regclass(s.name), s.value, s."isCalled")
    from jsonb_to_recordset($1::text::jsonb) as s (name text, value bigint, "isCalled" boolean)
    where to_regclass(s.name) is not null`,
    [JSON.stringify(sequences)],
  );
}
