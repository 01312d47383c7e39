import { createStatements, trackOptions } from "./create.ts";
import { type Circumstances, differences } from "./compare.ts";
import type { Lane, LaneName, Row } from "./lane.ts";
import { type Live, readLive } from "./live.ts";
import { newPlace } from "./place.ts";
import { ALTERATIONS, type Op, type OpKind, type Scenario, type TableSpec } from "./scenario.ts";
import { render, type Statement } from "./statements.ts";

/** A database for each path, on one server. The oracle's is the first. */
export type World = readonly Lane[];

/** A scenario that was run, and what was wrong. */
export interface Outcome {
  readonly scenario: Scenario;
  readonly statements: readonly Statement[];
  /** Of each statement: `ok`, or the SQLSTATE. */
  readonly results: readonly string[];
  readonly differences: readonly string[];
}

interface Run {
  readonly scenario: Scenario;
  readonly prefix: string;
  readonly statements: Statement[];
  readonly results: Map<LaneName, string[]>;
  /** By table and name, columns of which the WAL has not all. */
  readonly unseen: Set<string>;
  /** Whether a prepared transaction was committed after a later one. */
  isOverlapping: boolean;
}

/** DDL that changes rows. */
const REWRITES =
  /^(?:alter|drop) table (?:only )?\w+\.(t\d)\w*(?: cascade$| .*(?:drop column|alter column .* type|set expression))/;

/** Or what its values are called. */
const REWRITES_TYPE = /^alter type .* (?:rename value|attribute)/;

/** DDL that gives a table children or takes them away. */
const CHILDREN = /^drop table|^alter table .* inherit |^create table .* inherits /;

let counter = 0;

/** Runs scenarios one after the other in each lane, in all lanes at a time, and compares what came of them. */
export async function runBatch(world: World, scenarios: readonly Scenario[]): Promise<Outcome[]> {
  const [plain, ...others] = world;
  if (!plain) throw new Error("A world has lanes");
  const first = counter + 1;
  const composed: Promise<Run>[] = [];
  for (const scenario of scenarios) {
    composed.push(Promise.resolve(composed.at(-1)).then(() => compose(plain, scenario)));
  }
  const rows = new Map<LaneName, Row[]>();
  const collect = async (lane: Lane): Promise<void> => void rows.set(lane.name, await lane.collect(first));
  // The others follow where the oracle went ahead.
  const all = await Promise.allSettled([
    Promise.all(composed).then(() => collect(plain)),
    ...others.map(async (lane) => {
      for (const run of composed) await replay(lane, await run);
      await collect(lane);
    }),
  ]);
  for (const one of all) if (one.status === "rejected") throw one.reason;
  const runs = await Promise.all(composed);
  return runs.map((run) => {
    const results = run.results.get(plain.name) ?? [];
    if (isRefusedElsewhere(run)) {
      return { scenario: run.scenario, statements: run.statements, results, differences: [] };
    }
    return {
      scenario: run.scenario,
      statements: run.statements,
      results,
      differences: [
        ...others.flatMap(({ name }) => otherResults(run, results, name)),
        ...differences(
          new Map(
            [...rows].map(([name, all]) => [name, all.filter((row) => row.schema.startsWith(run.prefix))]),
          ),
          {
            version: plain.version,
            isOverlapping: run.isOverlapping,
            unseen: run.unseen,
            rewritten: rewrittenBy(run.statements.map(({ sql }) => sql.replaceAll('"', "")), run.scenario),
            cascaded: new Set(
              run.scenario.tables.flatMap(({ kind }, i) => kind === "child" ? [`t${i}`] : []),
            ),
            ...besideOthers(run),
            ignored: new Map([...trackOptions(run.scenario)].map(([table, { ignore }]) => [table, ignore])),
          },
        ),
      ],
    };
  });
}

function rewrittenBy(statements: readonly string[], { tables }: Scenario): Set<string> {
  if (statements.some((sql) => REWRITES_TYPE.test(sql))) return new Set(tables.map((_, i) => `t${i}`));
  return new Set(statements.flatMap((sql) => REWRITES.exec(sql)?.[1] ?? []));
}

/** What is written while another statement, or another part of the same, is. */
function besideOthers(
  { scenario, statements }: Run,
): Pick<Circumstances, "hidden" | "withoutContext"> {
  const has = (kind: TableSpec["trigger"]): boolean =>
    scenario.tables.some(({ trigger }) => trigger === kind);
  const side = statements.some(({ sql }) => sql.includes("with gone as")) ? ["side"] : [];
  return {
    hidden: new Set(has("before-other") ? side : []),
    withoutContext: new Set(has("set-context") ? side : []),
  };
}

/** Whether a lane was refused what others were not, by what is not capture; from there on it has other rows. */
function isRefusedElsewhere({ scenario, statements, results, isOverlapping }: Run): boolean {
  const [expected = [], ...others] = results.values();
  return others.some((own) => {
    const at = own.findIndex((result, i) => result !== expected[i]);
    const both = [expected[at], own[at]];
    // The oracle's event trigger alters a partition that is detached, which may have deferred triggers pending.
    return expected[at] === "55006" ||
      isOverlapping && (
          both.includes("40001") && scenario.settings.some(({ value }) => value === "serializable") ||
          // Nor does it spare partitions of a table whose triggers a prepared transaction has switched.
          expected[at] === "55P03" ||
          // What such a transaction did to the table's children has changed its triggers, which locks it.
          own[at] === "55P03" && statements.slice(0, at).some(({ sql }) => CHILDREN.test(sql))
        );
  });
}

function otherResults(run: Run, expected: readonly string[], name: LaneName): string[] {
  return (run.results.get(name) ?? []).flatMap((result, i) =>
    result === expected[i]
      ? []
      : [`${name}: ${result} instead of ${expected[i]}: ${run.statements[i]?.sql.slice(0, 200)}`]
  ).slice(0, 1);
}

/** Writes a scenario down as SQL by running it where the oracle is. */
async function compose(plain: Lane, scenario: Scenario): Promise<Run> {
  const prefix = `s${++counter}z`;
  const place = newPlace(plain.version, plain.encoding);
  const run: Run = {
    scenario,
    prefix,
    statements: [],
    results: new Map([[plain.name, []]]),
    unseen: new Set(),
    isOverlapping: false,
  };
  const results = run.results.get(plain.name) as string[];
  let live: Live = { schema: prefix, tables: [], composites: [] };
  let initial: ReadonlySet<string> | undefined;
  const look = async (): Promise<void> => {
    // In a transaction that failed there is nothing to see.
    live = await readLive(plain.session, prefix).catch(() => live);
    if (!live.schema) live = { schema: prefix, tables: [], composites: [] };
    const all = live.tables.flatMap((table) => table.columns.map((column) => ({ table, column })));
    const nameOf = ({ table, column }: (typeof all)[number]): string =>
      `${table.name.slice(0, 2)}.${column.name}`;
    initial ??= new Set(all.map(nameOf));
    for (const one of all) {
      // The default of one that was added is unknown to a root before PostgreSQL 15.
      const isUnknown = plain.version < 15 && one.table.kind === "p" && !initial.has(nameOf(one));
      if (one.column.generated || isUnknown) run.unseen.add(`${one.table.name}.${one.column.name}`);
    }
  };
  const send = async (statement: Statement | string): Promise<string> => {
    const whole = typeof statement === "string" ? { sql: statement, protocol: "simple" as const } : statement;
    run.statements.push(whole);
    const result = await plain.execute(whole);
    results.push(result);
    return result;
  };
  const perform = async (op: Op, isPrepared = false): Promise<void> => {
    for (const statement of render(op, live, place)) {
      await send(
        isPrepared && statement.protocol === "simple" ? { ...statement, protocol: "prepared" } : statement,
      );
    }
    if (isAlteration(op)) await look();
  };
  await plain.begin(scenario.settings);
  for (const sql of createStatements(scenario, place)) await send(sql.replaceAll(/@(?=\.|$)/g, prefix));
  await look();
  await send("set lock_timeout = '300ms'");
  for (const i of scenario.tables.keys()) await perform({ kind: "insert-many", picks: [i, i * 5] });
  const n = scenario.units.length;
  // All seeded rows of a partitioned table, since later ones are often alone in theirs.
  if (live.tables.some((table) => table.kind === "p")) await perform({ kind: "move", picks: [n, n, 1, n] });
  let late: string | undefined;
  for (const unit of scenario.units) {
    const waiting = late;
    late = undefined;
    switch (unit.kind) {
      case "statement":
        await perform(unit.op, unit.isPrepared);
        break;
      case "several":
        await send(
          unit.ops.flatMap((op) => render(op, live, place)).filter((s) => s.protocol !== "copy").map((s) =>
            s.sql
          ).join("; "),
        );
        break;
      case "alteration":
        await perform(unit.op);
        break;
      case "vacuum": {
        const table = live.tables[unit.pick % Math.max(1, live.tables.length)];
        if (table) await send(`vacuum (full, analyze) ${table.at}`);
        break;
      }
      case "transaction": {
        await send("begin");
        for (const step of unit.steps) {
          if ("kind" in step) await perform(step, unit.isPrepared);
          else {
            await send("savepoint s");
            for (const op of step.savepoint) await perform(op, unit.isPrepared);
            await send(step.isUndone ? "rollback to s" : "release s");
          }
        }
        if (unit.end.startsWith("two-phase")) {
          const name = `${prefix}_${run.statements.length}`;
          const result = await send(`prepare transaction '${name}'`);
          if (result === "ok" && unit.end === "two-phase-late") run.isOverlapping = true;
          if (unit.end === "two-phase") await send(`commit prepared '${name}'`);
          else late = name;
        } else await send(unit.end);
        await look();
      }
    }
    if (waiting) {
      await send(`commit prepared '${waiting}'`);
      await look();
    }
  }
  if (late) await send(`commit prepared '${late}'`);
  await plain.end();
  return run;
}

async function replay(lane: Lane, run: Run): Promise<void> {
  const results: string[] = [];
  run.results.set(lane.name, results);
  await lane.begin(run.scenario.settings);
  const options = trackOptions(run.scenario);
  // What Bemi's event trigger would do after each is done once: it is what is slow.
  await lane.execute({ sql: "set bemi.reconciling = 'on'", protocol: "simple" });
  for (const statement of run.statements) {
    results.push(await lane.execute(statement));
    if (statement.sql.startsWith("set lock_timeout")) {
      await lane.execute({
        sql:
          `set bemi.reconciling = ''; select from bemi.follow(array(select oid from pg_class where relnamespace = '${run.prefix}'::regnamespace), '{}')`,
        protocol: "simple",
      });
      for (const [table, option] of options) {
        await lane.inspect.query("select bemi.track($1::text::regclass, $2::text::jsonb)", [
          `${run.prefix}.${table}`,
          JSON.stringify(option),
        ]).catch(() => {});
      }
    }
  }
  await lane.end();
}

function isAlteration(op: Op): boolean {
  return (ALTERATIONS as readonly OpKind[]).includes(op.kind);
}
