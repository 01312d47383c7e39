import { withContext } from "../../context/scope.ts";
import { statementContext } from "../../context/statement-context.ts";
import { connect } from "../../database/connect.ts";
import type { Database, DatabaseLike } from "../../database/port.ts";
import { sqlstateOf } from "../../database/sqlstate.ts";
import { DEFAULT_SCHEMA } from "../../identifiers.ts";
import { requireInstalled } from "../../install/schema.ts";
import { type RevertConflict, RevertRefused } from "./conflicts.ts";
import { examine, type Examined } from "./examine.ts";
import { waitForWorker } from "../worker-lag.ts";
import type { RevertOptions, RevertPlan } from "./plan.ts";
import { type Adjusted, settle, Unsettled } from "./settle.ts";
import { statements } from "./statements.ts";
import { describeUnit, type RevertUnit } from "./unit.ts";

/** What a revert did. */
export interface RevertResult extends RevertPlan {
  /** The number of its own transaction, by which it can be reverted; `null` where there was nothing to do. */
  readonly transaction: string | null;
  /** Rows that triggers left otherwise than planned, such as by setting an `updated_at`. */
  readonly adjusted: readonly Adjusted[];
}

/**
 * Takes back what a unit changed, in one transaction: its rows are locked and checked before anything is written, so that
 * nobody's change is lost. It runs under the caller's context with `reverts` added, and so is history itself, which can
 * be reverted.
 *
 * @throws {RevertRefused} `conflict`, with the plan, where something is in the way and `onConflict` does not say what to do
 * @throws {BemiError} `not_found`, `log_behind`, `usage`, `schema_missing`
 * @example
 * ```ts
 * import { PGlite } from "@electric-sql/pglite";
 * import { revert } from "@bemi/core/history";
 * await revert(await PGlite.create(), { context: { request_id: "4f1c" } });
 * ```
 */
export async function revert(
  db: DatabaseLike,
  unit: RevertUnit,
  options: RevertOptions = {},
): Promise<RevertResult> {
  const { schema = DEFAULT_SCHEMA, onConflict = "refuse", wait } = options;
  const database = connect(db);
  await requireInstalled(database, schema);
  await waitForWorker(database, { schema, wait });
  return await withContext({ reverts: describeUnit(unit) }, () =>
    database.transaction(async (tx) => {
      const examined = await examine(tx, unit, { schema, onConflict, lock: true });
      if (examined.isRefused) throw new RevertRefused(examined.plan);
      return await carryOut(tx, schema, examined);
    }));
}

async function carryOut(tx: Database, schema: string, examined: Examined): Promise<RevertResult> {
  const { plan, batches, deferred } = examined;
  if (batches.length === 0) return { ...plan, transaction: null, adjusted: [] };
  const [before] = await tx.query<{ context: string | null }>(
    "select current_setting('bemi.context', true) as context",
  );
  await tx.query("select set_config('bemi.context', $1::text, true)", [statementContext() ?? ""]);
  try {
    if (deferred.length > 0) await tx.execute(`set constraints ${deferred.join(", ")} deferred`);
    for (const { sql, rows } of statements(batches)) await tx.query(sql, [rows]);
    const adjusted = await settle(tx, schema, batches.flat());
    if (deferred.length > 0) await tx.execute(`set constraints ${deferred.join(", ")} immediate`);
    const [own] = await tx.query<{ id: string | null }>(
      "select pg_current_xact_id_if_assigned()::text as id",
    );
    await tx.query("select set_config('bemi.context', $1::text, true)", [before?.context ?? ""]);
    return { ...plan, transaction: own?.id ?? null, adjusted };
  } catch (error) {
    throw refusal(error, plan);
  }
}

// A constraint, or a trigger that raised an exception: what no plan could foresee.
function refusal(error: unknown, plan: RevertPlan): unknown {
  if (error instanceof Unsettled) {
    return new RevertRefused({ ...plan, conflicts: [...plan.conflicts, error.conflict] });
  }
  const state = sqlstateOf(error);
  if (!state || !/^(?:23|P0001$)/.test(state)) return error;
  const told = error as Readonly<Record<string, string | undefined>>;
  const constraint = told.constraint_name ?? told.constraint;
  const conflict: RevertConflict = {
    kind: "refused",
    schema: told.schema_name ?? told.schema ?? "",
    table: told.table_name ?? told.table ?? "",
    key: null,
    columns: [],
    ...(constraint === undefined ? {} : { constraint }),
    changes: [],
    message: constraint === undefined
      ? `the database refused a statement (SQLSTATE ${state})`
      : `the constraint ${constraint} refuses a statement`,
    canForce: false,
  };
  return new RevertRefused({ ...plan, conflicts: [...plan.conflicts, conflict] }, error);
}
