import type { Database } from "../../database/port.ts";
import { quoteIdentifier, quoteSchema } from "../../identifiers.ts";
import { type Image, imageJson, readImage, without } from "./image.ts";
import { columnsNamed, onlyRows, recordColumns, type TableFacts } from "./tables.ts";

/** A row as the table has it now. */
export interface LiveRow {
  /** Where it lies, as long as it is locked: partition and ctid. */
  readonly locator: string;
  readonly image: Image;
  /** Columns that are otherwise than in the image that was compared with. */
  readonly differing: readonly string[];
}

/** How {@linkcode findRows} finds them. */
export interface FindOptions {
  /** Whether they are locked before they are read, in the order of their keys. */
  readonly lock: boolean;
  /** Whether only rows with differing columns get their image, and others an empty one. */
  readonly isComparing?: boolean;
}

/** A row to look for: by the key in `at`, or where the table has none, by all of `expected`. */
export interface Wanted {
  readonly at: Image;
  readonly expected: Image;
}

/** Finds rows, in the order in which they were asked for; `undefined` where there is none. */
export function findRows(
  db: Database,
  schema: string,
  table: TableFacts,
  wanted: readonly Wanted[],
  options: FindOptions,
): Promise<(LiveRow | undefined)[]> {
  if (wanted.length === 0) return Promise.resolve([]);
  return table.key.length > 0
    ? byKey(db, schema, table, wanted, options)
    : byContent(db, schema, table, wanted, options);
}

async function byKey(
  db: Database,
  schema: string,
  table: TableFacts,
  wanted: readonly Wanted[],
  { lock, isComparing = false }: FindOptions,
): Promise<(LiveRow | undefined)[]> {
  const keys = columnsNamed(table, table.key);
  const asked = wanted.map(({ at, expected }, n) =>
    `{"n": ${n}, "was": ${imageJson(without(expected, table.ignored))}, ${
      keys.map(({ name }, i) => `"k${i + 1}": ${at.get(name) ?? "null"}`).join(", ")
    }}`
  );
  const from = `from jsonb_to_recordset($1::text::jsonb) as bemi_wanted (n integer, was jsonb, ${
    recordColumns("k", keys)
  })
    join ${onlyRows(table)} as bemi_row on ${
    keys.map(({ name }, i) => `bemi_row.${quoteIdentifier(name)} = bemi_wanted.k${i + 1}`).join(" and ")
  }`;
  const parameter = `[${asked.join(", ")}]`;
  if (lock) {
    // Before they are read: who changed one meanwhile has committed, and what is read next is what he left.
    await db.query(
      `select count(*) from (select 1 ${from} order by ${
        keys.map((_, i) => `bemi_wanted.k${i + 1}`).join(", ")
      } for update of bemi_row) as locked`,
      [parameter],
    );
  }
  const rows = await db.query<RawRow>(
    `select n, locator, ${
      isComparing ? "case when differing <> '{}' then image else '{}' end" : "image"
    }::text as image,
      to_json(differing)::text as differing
    from (
      select bemi_wanted.n, ${LOCATOR} as locator, to_jsonb(bemi_row.*) as image,
        ${
      quoteSchema(schema)
    }.differing_columns($2::text::oid, to_jsonb(bemi_row.*), bemi_wanted.was) as differing ${from}
      offset 0
    ) as bemi_found`,
    [parameter, table.oid],
  );
  const found: (LiveRow | undefined)[] = wanted.map(() => undefined);
  for (const row of rows) found[row.n] = read(row);
  return found;
}

async function byContent(
  db: Database,
  schema: string,
  table: TableFacts,
  wanted: readonly Wanted[],
  { lock }: FindOptions,
): Promise<(LiveRow | undefined)[]> {
  const found: (LiveRow | undefined)[] = wanted.map(() => undefined);
  const bemi = quoteSchema(schema);
  const same = new Map<string, number[]>();
  // From before a column was added, an image fits more rows: it comes last, and takes none of the others'.
  const fullest = wanted.map(({ expected }, n) => ({ expected, n }))
    .sort((a, b) => b.expected.size - a.expected.size);
  for (const { expected, n } of fullest) {
    const image = imageJson(without(expected, table.ignored));
    const numbers = same.get(image);
    if (numbers) numbers.push(n);
    else same.set(image, [n]);
  }
  const taken: string[] = [];
  for (const [image, numbers] of same) {
    const rows = await db.query<RawRow>(
      `select 0 as n, ${LOCATOR} as locator, to_jsonb(bemi_row.*)::text as image, '[]' as differing
      from ${onlyRows(table)} as bemi_row
      where ${bemi}.differing_columns($2::text::oid, to_jsonb(bemi_row.*), $1::text::jsonb) = '{}'
        and not $4::text::jsonb ? (${LOCATOR})
      limit $3::text::integer ${lock ? "for update" : ""}`,
      [image, table.oid, String(numbers.length), JSON.stringify(taken)],
    );
    rows.forEach((row, i) => found[numbers[i] ?? 0] = read(row));
    for (const { locator } of rows) taken.push(locator);
  }
  return found;
}

/** Where a row lies, in a query that calls it `bemi_row`. */
export const LOCATOR: string = "bemi_row.tableoid::bigint::text || bemi_row.ctid::text";

interface RawRow {
  readonly n: number;
  readonly locator: string;
  readonly image: string;
  readonly differing: string;
}

function read({ locator, image, differing }: RawRow): LiveRow {
  return {
    locator,
    image: readImage(image),
    differing: JSON.parse(differing) as string[],
  };
}
