import type { Database } from "../../database/port.ts";
import { BemiError } from "../../errors.ts";
import { quoteSchema } from "../../identifiers.ts";
import { inSchema } from "../../install/schema.ts";
import { type ConflictKind, type RevertConflict, tableConflict } from "./conflicts.ts";
import type { LoggedChange, UnitLog } from "./log.ts";
import { type TableFacts, tableId } from "./tables.ts";
import { notReaching, renamedSince } from "./named-table.ts";
import type { RevertUnit } from "./unit.ts";

/** What is in the way of whole tables: they are gone, or the log does not know all of it. */
export async function unitConflicts(
  db: Database,
  schema: string,
  unit: RevertUnit,
  log: UnitLog,
  tables: ReadonlyMap<string, TableFacts | undefined>,
): Promise<RevertConflict[]> {
  const conflicts: RevertConflict[] = [];
  const add = (kind: ConflictKind, name: Name, message: string, canForce = true): void => {
    if (conflicts.some((other) => other.kind === kind && tableId(other) === tableId(name))) return;
    conflicts.push(tableConflict(kind, name, message, canForce));
  };
  if ("transaction" in unit && typeof unit.transaction !== "object") await requireOne(db, schema, log.own);
  for (const change of log.own) {
    const name = `${change.schema}.${change.table}`;
    if (!tables.get(tableId(change))) {
      const today = await nameOfToday(db, schema, change);
      add(
        "table_gone",
        change,
        today ? `${name} is called ${today} by now` : `there is no table ${name} any more`,
        false,
      );
    }
    if (change.isGap) add("gap", change, `a change of ${name} could not be recorded`);
  }
  if ("change" in unit || "transaction" in unit) return conflicts;
  for (const change of log.foreign) {
    if (change.isGap) {
      add("gap", change, `a change of ${change.schema}.${change.table} could not be recorded`);
    }
  }
  for (const change of await acrossGaps(db, schema, log.own)) {
    add(
      "gap",
      change,
      `part of the Write-Ahead Log was lost, and changes of ${change.schema}.${change.table} with it`,
    );
  }
  if ("to" in unit) {
    for (const name of await notReaching(db, schema, unit)) {
      add("gap", name, `the log of ${name.schema}.${name.table} does not reach back so far`);
    }
    for (const { former, ...name } of await renamedSince(db, schema, unit)) {
      add("table_gone", name, `${name.schema}.${name.table} was called ${former} at that time`, false);
    }
  }
  return conflicts;
}

type Name = Pick<LoggedChange, "schema" | "table">;

async function nameOfToday(
  db: Database,
  schema: string,
  { schema: own, table }: Name,
): Promise<string | undefined> {
  const [row] = await db.query<{ name: string }>(
    inSchema(
      schema,
      `select pg_catalog.format('%s.%s', n.nspname, c.relname) as name
      from "bemi".table_names t join "bemi".tables on tables.id = t.table_id join pg_class c on c.oid = tables.relation
        join pg_namespace n on n.oid = c.relnamespace
      where t.schema = $1::text and t.name = $2::text order by t.named_at desc limit 1`,
    ),
    [own, table],
  );
  return row?.name;
}

// A number of a transaction can come again: after 2^32 others in the WAL, after a restore, on another cluster.
async function requireOne(db: Database, schema: string, own: readonly LoggedChange[]): Promise<void> {
  const sources = await db.query<{ id: number; capture: string; cluster: string; server: string | null }>(
    `select id, capture, system_identifier || ':' || timeline || ':' || database as cluster,
      nullif(system_identifier, 'imported') as server from ${quoteSchema(schema)}.sources`,
  );
  const found = new Set(own.map(({ position: [source, lsn] }) => {
    const { capture, cluster } = sources.find(({ id }) => id === source) ?? {};
    return JSON.stringify(capture === "wal" ? [cluster, lsn.toString()] : [cluster]);
  }));
  const captures = new Set(
    own.map(({ position: [source] }) => sources.find(({ id }) => id === source)?.capture),
  );
  const servers = new Set(
    own.flatMap(({ position: [source] }) => sources.find(({ id }) => id === source)?.server ?? []),
  );
  if (found.size <= captures.size && servers.size <= 1) return;
  throw new BemiError("usage", "Several transactions of the log have this number", {
    hint: "Say which, as { source, commitLsn }, or revert by the context that their changes have.",
  });
}

async function acrossGaps(
  db: Database,
  schema: string,
  own: readonly LoggedChange[],
): Promise<LoggedChange[]> {
  const [first] = own;
  if (!first) return [];
  const gaps = await db.query<{ source_id: number; to: string }>(
    `select source_id, (to_lsn - '0/0')::text as "to" from ${quoteSchema(schema)}.gaps`,
  );
  return own.filter(({ position: [source] }) =>
    gaps.some(({ source_id, to }) => {
      const start = own.find((change) => change.position[0] === source)?.position[1] ?? 0n;
      return source_id === source && BigInt(to) > start;
    })
  );
}
