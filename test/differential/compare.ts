import { objectMembers } from "../../src/worker/message.ts";
import type { LaneName, Row } from "./lane.ts";

/** What is known of a scenario's run that bears on the comparison. */
export interface Circumstances {
  readonly version: number;
  /** Whether a transaction was prepared, and committed after a later one: a trigger cannot know that order. */
  readonly isOverlapping: boolean;
  /**
   * Columns that were generated at some time, which the WAL has not before PostgreSQL 18, or added to a partitioned
   * table, whose default it has not before 15.
   */
  readonly unseen: ReadonlySet<string>;
  /** Tables whose rows an ALTER or a DROP has changed, of which no path tells. */
  readonly rewritten: ReadonlySet<string>;
  /** Tables that a foreign key's cascade writes: in the WAL, without the client's statement. */
  readonly cascaded: ReadonlySet<string>;
  /** Tables that a BEFORE trigger writes while a statement of the client's does: its message hides that statement's. */
  readonly hidden: ReadonlySet<string>;
  /** Tables captured by statement, while which a row trigger sets the context: the statement's end has that. */
  readonly withoutContext: ReadonlySet<string>;
  /** By table, columns whose change alone records nothing. */
  readonly ignored: ReadonlyMap<string, readonly string[]>;
}

export type Lanes = ReadonlyMap<LaneName, readonly Row[]>;

/** What differs between the lanes, in words and rows; empty where all is as it should be. */
export function differences(lanes: Lanes, circumstances: Circumstances): string[] {
  const found: string[] = [];
  const prepared = new Map([...lanes].map(([name, rows]) => [name, normalise(name, rows, circumstances)]));
  const names = [...prepared.keys()].filter((name) => name !== "plain");
  const [first] = names;
  const reference = first && prepared.get(first);
  if (!first || !reference) return found;
  const isOrdered = !circumstances.isOverlapping &&
    ![...lanes].some(([name, rows]) => name !== "plain" && new Set(rows.map((row) => row.capture)).size > 1);
  const apart = ofTwoSources(prepared);
  for (const name of names.slice(1)) {
    found.push(...compare({
      names: [first, name],
      isOrdered,
      left: stories(reference, isOrdered, apart),
      right: stories(prepared.get(name) ?? [], isOrdered, apart),
    }));
  }
  const plain = prepared.get("plain");
  if (plain) {
    found.push(...compare({
      names: ["plain", first],
      isOrdered,
      left: bags(plain, isOrdered),
      right: bags(reference, isOrdered),
    }));
  }
  for (const name of names) {
    found.push(
      ...broken(
        name,
        (prepared.get(name) ?? []).filter((row) =>
          ignoredOf(row, circumstances).length === 0 && !circumstances.rewritten.has(row.table.slice(0, 2))
        ),
      ),
    );
  }
  return found;
}

const withContext = (row: Row): string => `${withoutContext(row)} ${row.context}`;
const withoutContext = (row: Row): string =>
  `${row.operation} ${row.schema}.${row.table} ${row.former ?? ""}->${row.key} ${row.before} => ${row.after}`;

interface Pair {
  readonly names: readonly [string, string];
  readonly left: readonly string[][];
  readonly right: readonly string[][];
  readonly isOrdered: boolean;
}

function compare({ names: [left, right], left: a, right: b, isOrdered }: Pair): string[] {
  const seconds = isOrdered ? [] : b.map((lines) => JSON.stringify(lines));
  for (let i = 0; i < Math.max(a.length, b.length); i++) {
    const [one = [], two = []] = [a[i], b[i]];
    if (JSON.stringify(one) === JSON.stringify(two)) continue;
    if (!isOrdered) {
      const at = seconds.indexOf(JSON.stringify(one));
      if (at >= 0) {
        seconds[at] = "";
        continue;
      }
    }
    const missing = one.filter((line) => !two.includes(line));
    const more = two.filter((line) => !one.includes(line));
    return [
      `${left} and ${right} differ in transaction ${i + 1} of ${a.length} and ${b.length}`,
      ...missing.map((line) => `  ${left}: ${line}`),
      ...more.map((line) => `  ${right}: ${line}`),
      ...(missing.length + more.length === 0 ? ["  in number"] : []),
    ];
  }
  return [];
}

const keysOf = (row: Row): string[] =>
  [...new Set([row.key, row.former ?? row.key])].map((key) => `${row.schema}.${row.table} ${key}`);

/** Keys that triggers and the WAL both tell of, as of an unlogged table and a logged one in its place: each in its own order. */
function ofTwoSources(lanes: Lanes): Set<string> {
  const found = new Set<string>();
  for (const rows of lanes.values()) {
    const captures = new Map<string, string | undefined>();
    for (const row of rows) {
      for (const key of keysOf(row)) {
        if (captures.has(key) && captures.get(key) !== row.capture) found.add(key);
        captures.set(key, row.capture);
      }
    }
  }
  return found;
}

/**
 * Each transaction as lines: for each key what happened to it in order, for rows without a key, and for those of two
 * sources, in any order.
 */
function stories(rows: readonly Row[], isOrdered: boolean, apart: ReadonlySet<string>): string[][] {
  const all = transactions(rows).map((own) => {
    const keys = new Map<string, Row[]>();
    for (const row of own) {
      for (const name of keysOf(row)) keys.set(name, [...keys.get(name) ?? [], row]);
    }
    return [...keys].map(([name, its]) => {
      const lines = thereAndBack(its).map(withContext);
      return `${name}:\n      ${
        (name.endsWith(" null") || apart.has(name) ? lines.toSorted() : lines).join("\n      ")
      }`;
    }).toSorted();
  });
  return isOrdered ? all : all.toSorted(byText);
}

/**
 * Two changes of which each undoes the other come in one order: where a row trigger wrote the row before without changing
 * it, a late change may be in the log behind the one that undid it, and nothing in the row's versions tells.
 */
function thereAndBack(rows: readonly Row[]): Row[] {
  const sorted = [...rows];
  for (let i = 1; i < sorted.length; i++) {
    const [one, two] = [sorted[i - 1], sorted[i]];
    if (!one || !two || one.before !== two.after || one.after !== two.before || one.operation !== "UPDATE") {
      continue;
    }
    if (withContext(one) > withContext(two)) [sorted[i - 1], sorted[i]] = [two, one];
    i++;
  }
  return sorted;
}

/** Each transaction as lines in any order. */
function bags(rows: readonly Row[], isOrdered: boolean): string[][] {
  // A TRUNCATE fires the oracle's triggers once for each partition.
  const all = transactions(rows).map((own) =>
    own.map(withoutContext).toSorted().filter((line, i, lines) =>
      !line.startsWith("TRUNCATE") || line !== lines[i - 1]
    )
  );
  return isOrdered ? all : all.toSorted(byText);
}

function byText(a: unknown, b: unknown): number {
  return JSON.stringify(a) < JSON.stringify(b) ? -1 : 1;
}

function transactions(rows: readonly Row[]): Row[][] {
  const byId = new Map<string, Row[]>();
  for (const row of rows) byId.set(row.transaction, [...byId.get(row.transaction) ?? [], row]);
  return [...byId.values()];
}

/** Where a key's changes do not follow from one another. */
function broken(name: string, rows: readonly Row[]): string[] {
  const last = new Map<string, string>();
  const found: string[] = [];
  for (const row of rows) {
    if (row.operation === "TRUNCATE") {
      for (const key of last.keys()) if (key.startsWith(`${row.schema}.${row.table} `)) last.delete(key);
    }
    if (row.key === null) continue;
    const key = `${row.schema}.${row.table} ${row.key}`;
    const former = `${row.schema}.${row.table} ${row.former ?? row.key}`;
    const known = last.get(former);
    if (known !== undefined && sameColumns(known, row.before) && known !== row.before) {
      found.push(`${name}: the history of ${former} is broken`, `  ${known}`, `  ${withContext(row)}`);
    }
    last.delete(former);
    if (row.operation !== "DELETE") last.set(key, row.after);
  }
  return found;
}

// DDL in between changes what a row has.
function sameColumns(a: string, b: string): boolean {
  const names = (json: string): string => (objectMembers(json) ?? []).map(([key]) => key).join();
  return names(a) === names(b);
}

function normalise(name: LaneName, rows: readonly Row[], circumstances: Circumstances): Row[] {
  const own = name !== "plain" ? rows : merged(rows).filter((row) => {
    const ignored = ignoredOf(row, circumstances);
    return row.operation !== "UPDATE" || without(row.before, ignored) !== without(row.after, ignored);
  });
  const comparable =
    (circumstances.version < 18 ? own.flatMap((row) => withoutUnseen(row, circumstances)) : own)
      .map((row) => ({ ...row, context: row.context && comparableContext(row, circumstances) }));
  // What is renamed counts from there on in the WAL, and not from the commit.
  return circumstances.isOverlapping
    ? comparable.map((row) => ({ ...row, schema: row.schema.replace(/x+$/, "") }))
    : comparable;
}

function comparableContext({ table, operation, context }: Row, circumstances: Circumstances): string {
  const { cascaded, hidden, withoutContext } = circumstances;
  if (withoutContext.has(table)) {
    // Nor whether what it set was an object.
    const facts = new Map(objectMembers(context) ?? []).get("db") ?? "{}";
    return without(facts, ["context_error"]);
  }
  const isCascade = cascaded.has(table.slice(0, 2)) && ["UPDATE", "DELETE"].includes(operation);
  return isCascade || hidden.has(table) && operation === "CREATE" ? without(context, ["SQL"]) : context;
}

// A renamed table's name begins like its first one. A parent that it got later has no options.
function ignoredOf(row: Row, { ignored }: Circumstances): readonly string[] {
  return row.table.includes("_parent") ? [] : ignored.get(row.table.slice(0, 2)) ?? [];
}

function without(json: string, names: readonly string[]): string {
  if (names.length === 0) return json;
  return JSON.stringify((objectMembers(json) ?? []).filter(([key]) => !names.includes(key)));
}

/** A partition move is one UPDATE: AFTER ROW triggers see a DELETE and an INSERT in a statement that is an UPDATE. */
function merged(rows: readonly Row[]): Row[] {
  const result: Row[] = [];
  for (const row of rows) {
    const isHalf = row.statement === "UPDATE" && row.operation === "CREATE";
    // What a trigger on the new row wrote comes in between.
    const at = result.findLastIndex((other) =>
      isHalf && other.statement === "UPDATE" && other.operation === "DELETE" && other.table === row.table &&
      other.transaction === row.transaction
    );
    const [half] = at < 0 ? [] : result.splice(at, 1);
    if (half) {
      const former = half.key === row.key ? null : half.key;
      result.push({ ...row, operation: "UPDATE", before: half.before, former });
    } else result.push(row);
  }
  return result;
}

function withoutUnseen(row: Row, { unseen }: Circumstances): Row[] {
  const strip = (json: string): string => {
    const members = objectMembers(json)?.filter(([key]) => !unseen.has(`${row.table}.${key}`)) ?? [];
    return `{${members.map(([key, value]) => `${JSON.stringify(key)}: ${value}`).join(", ")}}`;
  };
  const { before, after } = { before: strip(row.before), after: strip(row.after) };
  // Nothing else has changed, as when an inheritance parent's UPDATE sets what is generated in the child.
  if (row.operation === "UPDATE" && before === after && row.before !== row.after) return [];
  return [{ ...row, before, after }];
}
