import { inSchema } from "../install/schema.ts";
import { type Lsn, parseLsn } from "./decode.ts";
import type { Source } from "./source.ts";
import type { TableFacts } from "./table.ts";

/** What tracked tables were like at each place in the WAL. */
export interface TableHistory {
  at(oid: number, lsn: Lsn): TableFacts | undefined;
  has(oid: number): boolean;
}

/**
 * Reads the versions of all tracked tables, dropped ones too. Where the last version holds, the catalog of today has the
 * last word, which also knows of changes that no event trigger noted.
 */
export async function readTableHistory({ db, schema }: Pick<Source, "db" | "schema">): Promise<TableHistory> {
  const rows = await db.query<{ oid: string; from: string | null; facts: string }>(inSchema(
    schema,
    `select relation::text as oid, from_lsn::text as "from", facts::text as facts from "bemi".read_tables()
    order by relation, from_lsn nulls last`,
  ));
  const tables = new Map<number, TableFacts[]>();
  for (const { oid, from, facts } of rows) {
    const versions = tables.get(Number(oid)) ?? [];
    tables.set(Number(oid), versions);
    const last = versions.at(-1);
    const next = JSON.parse(facts) as Omit<TableFacts, "from" | "until" | "isNoted">;
    if (from === null) {
      // Types that are gone by now are still in the WAL.
      const types = [...last?.types ?? [], ...next.types];
      const isNoted = last?.schema === next.schema && last.name === next.name;
      versions.splice(-1, 1, { ...next, types, isNoted, from: last?.from ?? 0n });
      continue;
    }
    const since = parseLsn(from);
    if (last) versions[versions.length - 1] = { ...last, until: since };
    versions.push({ ...next, isNoted: true, from: since });
  }
  return {
    at: (oid, lsn) => tables.get(oid)?.findLast((version) => version.from <= lsn),
    has: (oid) => tables.has(oid),
  };
}
