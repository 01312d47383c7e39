import { keyText } from "../key.ts";
import type { Database } from "../../database/port.ts";
import { inSchema } from "../../install/schema.ts";
import type { Operation } from "../change.ts";
import { type Image, readImage } from "./image.ts";
import { readRenames, type Renamer } from "./renames.ts";
import { type RevertUnit, unitCondition } from "./unit.ts";

/** A change as reverting needs it. */
export interface LoggedChange {
  readonly id: string;
  readonly schema: string;
  readonly table: string;
  readonly key: string | null;
  readonly formerKey: string | null;
  readonly operation: Operation;
  readonly before: Image;
  readonly after: Image;
  /** What its LSN can be compared with: sources of one cluster and timeline, however captured. */
  readonly epoch: number;
  /** Its source, LSN, and index in the transaction. */
  readonly position: readonly [source: number, lsn: bigint, index: bigint];
  readonly transaction: string;
  readonly committedAt: string;
  /** Whether it only says that a change could not be recorded. */
  readonly isGap: boolean;
}

/** Which changes are a unit's, and which other ones came to their rows since. In the total order. */
export interface UnitLog {
  readonly own: readonly LoggedChange[];
  readonly foreign: readonly LoggedChange[];
}

/** Reads what a unit changed, and what others did to its rows from its first change on. */
export async function readUnit(db: Database, schema: string, unit: RevertUnit): Promise<UnitLog> {
  const { where, parameters } = unitCondition(unit);
  const select = selecting(db, schema);
  const own = "key" in unit
    ? await ofKeys(select, { where, parameters, start: [keyText(unit.key)] })
    : await select(`from "bemi".changes c where ${where} and c.operation <> 'SNAPSHOT'`, parameters);
  if ("to" in unit || own.length === 0) return { own, foreign: [] };
  const known = new Set(own.map(({ id }) => id));
  const [first] = own;
  const tables = new Map<string, LoggedChange[]>();
  for (const change of own) {
    const name = JSON.stringify([change.schema, change.table]);
    const list = tables.get(name);
    if (list) list.push(change);
    else tables.set(name, [change]);
  }
  const foreign: LoggedChange[][] = [];
  for (const changes of tables.values()) {
    const { schema: of, table, committedAt } = changes.reduce((a, b) =>
      a.committedAt < b.committedAt ? a : b
    );
    const start = [...new Set(changes.flatMap(({ key, formerKey }) => [key, formerKey]))].filter((key) =>
      key !== null
    );
    // An hour earlier, since overlapping transactions are not ordered by time.
    const [n1, n2, n3] = [1, 2, 3].map((n) => `$${parameters.length + n}::text`);
    const found = await ofKeys(select, {
      where:
        `c."table" = ${n1} and c.schema = ${n2} and c.committed_at >= ${n3}::timestamptz - interval '1 hour'
          and (${where}) is not true`,
      parameters: [...parameters, table, of, committedAt],
      start,
    });
    foreign.push(found.filter((change) => !known.has(change.id) && first && isAfter(change, first)));
  }
  return { own, foreign: foreign.flat().sort(byPosition) };
}

/** Orders changes as they happened. */
export function byPosition(a: LoggedChange, b: LoggedChange): number {
  if (a.epoch !== b.epoch) return a.epoch - b.epoch;
  const [, lsn, index] = a.position;
  const [, otherLsn, otherIndex] = b.position;
  if (lsn !== otherLsn) return lsn < otherLsn ? -1 : 1;
  return index === otherIndex ? 0 : index < otherIndex ? -1 : 1;
}

/** The changes that one source captured since a place in the log. */
export async function changesSince(
  db: Database,
  schema: string,
  place: { readonly source: number; readonly lsn: string; readonly index: string },
): Promise<LoggedChange[]> {
  return await selecting(db, schema)(
    `from "bemi".changes c where c.source_id = $1::text::integer and c.commit_lsn >= $2::text::pg_lsn
      and c.transaction_index > $3::text::bigint and c.operation <> 'SNAPSHOT'`,
    [String(place.source), place.lsn, place.index],
  );
}

/** The changes of a table before one of them, from the TRUNCATE before that on. */
export async function changesBefore(
  db: Database,
  schema: string,
  { schema: of, table, position }: LoggedChange,
): Promise<LoggedChange[]> {
  const earlier = await selecting(db, schema)(
    `from "bemi".changes c where c."table" = $1::text and c.schema = $2::text and (c.source_id, c.commit_lsn, c.transaction_index)
      < ($3::text::integer, '0/0'::pg_lsn + $4::text::numeric, $5::text::bigint)`,
    [table, of, ...position.map(String)],
  );
  return earlier.slice(earlier.findLastIndex(({ operation }) => operation === "TRUNCATE") + 1);
}

interface KeySearch {
  /** On `changes` as `c`. */
  readonly where: string;
  readonly parameters: readonly string[];
  readonly start: readonly string[];
}

// The changes of some keys, of the keys that their rows had before or got later, and so on; and what befell the whole table.
async function ofKeys(
  select: Select,
  { where, parameters, start }: KeySearch,
): Promise<LoggedChange[]> {
  const found = new Map<string, LoggedChange>();
  const seen = new Set<string>();
  const keep = (changes: readonly LoggedChange[]): void => {
    for (const change of changes) found.set(change.id, change);
  };
  let keys = [...start];
  while (keys.length > 0) {
    for (const key of keys) seen.add(key);
    const wanted = JSON.stringify(keys);
    const listed = `$${parameters.length + 1}::text::jsonb`;
    const fresh = [
      ...await select(
        `from jsonb_array_elements_text(${listed}) as k (key) cross join lateral (
          select * from "bemi".changes c where ${where} and c.operation <> 'SNAPSHOT'
            and hashtextextended(c.primary_key, 0) = hashtextextended(k.key, 0) and c.primary_key = k.key) as c where true`,
        [...parameters, wanted],
      ),
      ...await select(
        `from "bemi".changes c join jsonb_array_elements_text(${listed}) as k (key)
          on hashtextextended(c.former_primary_key, 0) = hashtextextended(k.key, 0) and c.former_primary_key = k.key
        where ${where} and c.former_primary_key is not null`,
        [...parameters, wanted],
      ),
    ];
    keep(fresh);
    keys = [...new Set(fresh.flatMap(({ key, formerKey }) => [key, formerKey]))]
      .filter((key) => key !== null && !seen.has(key)) as string[];
  }
  keep(
    await select(
      `from "bemi".changes c where ${where} and c.primary_key is null and c.before = '{}' and c.after = '{}'
        and (c.operation = 'TRUNCATE' or c.context -> 'db' ? 'gap')`,
      parameters,
    ),
  );
  return [...found.values()].sort(byPosition);
}

/** Reads changes in their order. What names meant, and how sources compare, is asked for once, where there is a change. */
type Select = (from: string, parameters: readonly string[]) => Promise<LoggedChange[]>;

function selecting(db: Database, schema: string): Select {
  let known: { readonly epochs: ReadonlyMap<number, number>; readonly renamed: Renamer } | undefined;
  return async (from, parameters) => {
    const rows = await db.query<RawChange>(inSchema(schema, `${SELECT} ${from}`), parameters);
    if (rows.length === 0) return [];
    const { epochs, renamed } = known ??= {
      epochs: await epochsOf(db, schema),
      renamed: await readRenames(db, schema),
    };
    return rows.map(({ before, after, source: text, lsn, index, isGap, ...change }): LoggedChange => {
      const source = Number(text);
      return {
        ...change,
        epoch: epochs.get(source) ?? source,
        before: renamed(readImage(before), change),
        after: renamed(readImage(after), change),
        position: [source, BigInt(lsn), BigInt(index)],
        isGap: isGap === "true",
      };
    }).sort(byPosition);
  };
}

async function epochsOf(db: Database, schema: string): Promise<Map<number, number>> {
  const rows = await db.query<{ source: number; epoch: number }>(
    inSchema(schema, 'select source_id as source, epoch from "bemi".epochs'),
  );
  return new Map(rows.map(({ source, epoch }) => [source, epoch]));
}

/** All of it as text, as any driver gives it. */
interface RawChange extends Omit<LoggedChange, "before" | "after" | "position" | "epoch" | "isGap"> {
  readonly before: string;
  readonly after: string;
  readonly source: string;
  readonly lsn: string;
  readonly index: string;
  readonly isGap: string;
}

function isAfter(change: LoggedChange, other: LoggedChange): boolean {
  return byPosition(change, other) > 0;
}

const SELECT =
  `select c.id::text as id, c.schema, c."table", c.primary_key as key, c.former_primary_key as "formerKey",
    c.operation, c.before::text as before, c.after::text as after, c.source_id::text as source,
    (c.commit_lsn - '0/0')::text as lsn, c.transaction_index::text as index, c.transaction_id::text as transaction,
    to_char(c.committed_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as "committedAt",
    coalesce(c.context -> 'db' ? 'gap', false)::text as "isGap"`;
