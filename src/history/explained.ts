import type { Database } from "../database/port.ts";
import { SQLSTATE, sqlstateOf } from "../database/sqlstate.ts";
import { BemiError, type BemiErrorCode } from "../errors.ts";
import { requireInstalled } from "../install/schema.ts";

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

/** Runs a read of the log. Whether Bemi is installed is asked only where it failed, for that takes as long as a read. */
export async function reading<R>(
  database: Database,
  schema: string,
  read: () => Promise<R>,
): Promise<R> {
  try {
    return await read();
  } catch (error) {
    if (error instanceof BemiError || sqlstateOf(error) === undefined) throw error;
    try {
      await requireInstalled(database, schema);
    } catch (missing) {
      // Within a failed transaction nothing can be asked.
      if (missing instanceof BemiError) throw missing;
    }
    throw explained(error);
  }
}

// Data exceptions, and what a domain refuses; but not of dates, for the moment itself may be none.
const UNFIT = /^(?:22(?!00[78])...|23502|23514)$/;

/** Makes rows of then in today's types. What does not fit them is said without its value. */
export async function inTodaysTypes<R>(table: string, make: () => Promise<R>): Promise<R> {
  try {
    return await make();
  } catch (error) {
    const state = sqlstateOf(error) ?? "";
    if (!UNFIT.test(state)) throw error;
    throw new BemiError(
      "history_unknown",
      `A value that ${table} had then does not fit the type that its column has today (SQLSTATE ${state})`,
      { hint: "history() and changes() give the values as they were, whatever became of their types." },
    );
  }
}
