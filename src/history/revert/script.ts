import { contextText } from "../../context/context-text.ts";
import { contextLiteralSql } from "../../context/context-sql.ts";
import { connect } from "../../database/connect.ts";
import type { DatabaseLike } from "../../database/port.ts";
import { DEFAULT_SCHEMA } from "../../identifiers.ts";
import { requireInstalled } from "../../install/schema.ts";
import { RevertRefused } from "./conflicts.ts";
import { examine } from "./examine.ts";
import { waitForWorker } from "../worker-lag.ts";
import type { RevertOptions } from "./plan.ts";
import { script } from "./statements.ts";
import { describeUnit, type RevertUnit } from "./unit.ts";

/**
 * A revert as SQL to read, change and run by other means: one transaction, which fails as a whole where a row that it
 * changes or deletes is no longer as it was. Changes nothing itself.
 *
 * @throws {RevertRefused} `conflict`
 * @throws {BemiError} as {@linkcode planRevert}
 * @example
 * ```ts
 * import postgres from "postgres";
 * import { revertScript } from "@bemi/core/history";
 *
 * console.log(await revertScript(postgres(), { context: { request_id: "01JC" } }));
 * ```
 */
export async function revertScript(
  db: DatabaseLike,
  unit: RevertUnit,
  options: RevertOptions = {},
): Promise<string> {
  const { schema = DEFAULT_SCHEMA, onConflict = "refuse", wait } = options;
  const database = connect(db);
  await requireInstalled(database, schema);
  await waitForWorker(database, { schema, wait });
  const { plan, batches, deferred, isRefused } = await database.transaction((tx) =>
    examine(tx, unit, { schema, onConflict, lock: false })
  );
  if (isRefused) throw new RevertRefused(plan);
  return [
    "begin;\n",
    `${contextLiteralSql(contextText({ reverts: describeUnit(unit) }))};\n`,
    ...(deferred.length > 0 ? [`set constraints ${deferred.join(", ")} deferred;\n`] : []),
    ...script(batches, schema),
    "commit;\n",
  ].join("\n");
}
