import { SQLSTATE, sqlstateOf } from "../database/sqlstate.ts";

/** Whether a statement failed because it cannot run inside a transaction: VACUUM, or a procedure that commits. */
export function refusesTransactions(error: unknown): boolean {
  const state = sqlstateOf(error);
  return state === SQLSTATE.activeSqlTransaction || state === SQLSTATE.invalidTransactionTermination;
}
