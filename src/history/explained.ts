import { SQLSTATE, sqlstateOf } from "../database/sqlstate.ts";
import { BemiError, type BemiErrorCode } from "../errors.ts";

const CODES: Readonly<Record<string, BemiErrorCode>> = {
  [SQLSTATE.historyUnknown]: "history_unknown",
  [SQLSTATE.changeMissing]: "not_found",
};

/** Bemi's own refusals in SQL as a {@linkcode BemiError}; their messages name tables and times, never values. */
export function explained(error: unknown): unknown {
  const code = CODES[sqlstateOf(error) ?? ""];
  if (!code) return error;
  const { message, hint } = error as { message: string; hint?: string };
  return new BemiError(code, message, { hint, cause: error });
}
