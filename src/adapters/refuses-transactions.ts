import { warn } from "../context/warn.ts";
import { SQLSTATE, sqlstateOf } from "../database/sqlstate.ts";

/** Whether a statement failed because it cannot run inside a transaction: VACUUM, or a procedure that commits. */
export function refusesTransactions(error: unknown): boolean {
  const state = sqlstateOf(error);
  return state === SQLSTATE.activeSqlTransaction || state === SQLSTATE.invalidTransactionTermination;
}

/** Says that a statement which refuses transactions is run once more, bare. */
export function warnOfBareRun(): void {
  warn("a statement cannot run inside a transaction: it ran without its context");
}
