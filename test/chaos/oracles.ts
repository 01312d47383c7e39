import { connect } from "../../src/database/connect.ts";
import type postgres from "postgres";
import { type Entry, NAMES } from "./clients.ts";

interface Logged {
  readonly xid: string;
  readonly operation: string;
  readonly table: string;
  readonly key: string | null;
  readonly former: string | null;
  readonly before: Record<string, unknown>;
  readonly after: Record<string, unknown>;
  readonly marker: string | null;
}

/** The log in its total order, in pieces: it may be large. */
async function* logged(sql: postgres.Sql): AsyncGenerator<Logged> {
  const query = sql<{ json: string }[]>`
    select json_build_object('xid', transaction_id::text, 'operation', operation, 'table', "table", 'key', primary_key,
      'former', former_primary_key, 'before', before, 'after', after, 'marker', context ->> 'marker')::text as json
    from bemi.changes order by source_id, commit_lsn, transaction_index`;
  for await (const rows of query.cursor(5000)) {
    for (const { json } of rows) yield JSON.parse(json) as Logged;
  }
}

/** What is wrong, in words; nothing where nothing is. */
export async function verify(
  sql: postgres.Sql,
  journals: readonly (readonly Entry[])[],
): Promise<{ changes: number; problems: string[] }> {
  const problems: string[] = [];
  const report = (problem: string): void => {
    if (problems.length < 20) problems.push(problem);
  };

  // First oracle: replaying the log onto nothing gives the live tables.
  const rows = new Map<string, Map<string, unknown>>(NAMES.map((name) => [name, new Map()]));
  const loose = new Map<string, number>();
  const byTransaction = new Map<string, string[]>();
  let changes = 0;
  for await (const { xid, operation, table, key, former, before, after, marker } of logged(sql)) {
    changes++;
    const told = `${operation} ${table} ${table === "audits" ? "?" : key} ${marker}`;
    const list = byTransaction.get(xid);
    if (list) list.push(told);
    else byTransaction.set(xid, [told]);
    const known = rows.get(table);
    if (!known) {
      report(`a change of ${table}, which nobody tracks`);
    } else if (operation === "TRUNCATE") {
      known.clear();
    } else if (table === "notes") {
      const [image, by] = operation === "CREATE" ? [after, 1] : [before, -1];
      const line = JSON.stringify([image.who, image.v]);
      loose.set(line, (loose.get(line) ?? 0) + by);
      if ((loose.get(line) ?? 0) < 0) report(`${told}: deletes what is not there`);
    } else {
      const current = known.get(former ?? key ?? "");
      if (operation === "CREATE" ? current !== undefined : !follows(current, before)) {
        report(`${told}: does not follow from what was before`);
      }
      known.delete(former ?? key ?? "");
      if (operation !== "DELETE") known.set(key ?? "", after);
    }
  }
  const port = connect(sql);
  for (const table of NAMES) {
    const live = await port.query<{ json: string }>(`select to_jsonb(t)::text as json from ${table} t`);
    if (table === "notes") {
      const count = [...loose.values()].reduce((sum, n) => sum + n, 0);
      if (count !== live.length) report(`notes has ${live.length} rows, the log ${count}`);
      continue;
    }
    const expected = live.map(({ json }) => canonical(JSON.parse(json) as object)).sort();
    const found = [...(rows.get(table)?.values() ?? [])].map((row) => canonical(row as object)).sort();
    const known = new Set(found);
    const missing = expected.filter((row) => !known.has(row));
    if (missing.length > 0 || found.length !== expected.length) {
      report(`${table} has ${expected.length} rows, the log ${found.length}; ${missing.length} differ`);
    }
  }

  // Second: what each client knows it committed is there, with its contexts, and nothing else.
  const rowsOfCommits = await port.query<{ name: string }>(
    "select who || '.' || number as name from commits",
  );
  const committed = new Set(rowsOfCommits.map(({ name }) => name));
  // Of those that had the same number, one after a crash took away the other, at most one was committed.
  const known = new Map<string, readonly string[]>();
  for (const { xid, name, changes: noted } of journals.flat()) {
    if (committed.has(name)) known.set(xid, [...noted].sort());
    else if (!known.has(xid)) known.set(xid, []);
  }
  for (const [xid, expected] of known) {
    const found = [...(byTransaction.get(xid) ?? [])].sort();
    if (JSON.stringify(expected) === JSON.stringify(found)) continue;
    report(
      `transaction ${xid}: ${expected.length} changes noted, ${found.length} in the log: ${
        expected.find((line) => !found.includes(line)) ?? found.find((line) => !expected.includes(line))
      }`,
    );
  }
  for (const xid of byTransaction.keys()) if (!known.has(xid)) report(`transaction ${xid} is nobody's`);
  return { changes, problems };
}

/** Columns that came or went in between were in no statement, and are in neither or one of the images. */
function follows(current: unknown, before: Record<string, unknown>): boolean {
  if (typeof current !== "object" || current === null) return false;
  const row = current as Record<string, unknown>;
  return Object.keys(before).every((column) =>
    !(column in row) || JSON.stringify(row[column]) === JSON.stringify(before[column])
  );
}

/** Without the columns that schema changes add for a while. */
function canonical(row: object): string {
  return JSON.stringify(Object.entries(row).filter(([name]) => !/^c\d/.test(name)).sort());
}
