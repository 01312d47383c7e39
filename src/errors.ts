/**
 * Every code that a {@linkcode BemiError} can carry, and what it means.
 *
 * | code | meaning |
 * | --- | --- |
 * | `conflict` | something is in the way of a revert: see the plan that the error carries |
 * | `connection_failed` | the database could not be reached |
 * | `context_invalid` | a context is not a plain JSON object |
 * | `decode_failed` | bytes from the Write-Ahead Log are malformed, truncated or unknown |
 * | `history_unknown` | the log does not know all of what was asked for, or today's types cannot hold it; the hint says what it does know |
 * | `invalid_name` | a schema name cannot be used |
 * | `gap` | part of the Write-Ahead Log was lost before it was read |
 * | `lock_timeout` | a table stayed locked by others through every attempt |
 * | `log_behind` | the log has not caught up with the Write-Ahead Log |
 * | `missing_package` | an optional package is not installed |
 * | `not_found` | the log has no such change or transaction |
 * | `not_trackable` | this relation cannot be tracked |
 * | `privilege_missing` | the role lacks a right |
 * | `schema_incompatible` | the installed schema is newer than this library |
 * | `schema_missing` | Bemi is not installed in this database |
 * | `table_missing` | no such table |
 * | `unsupported_client` | the database client is of no known kind |
 * | `wal_unavailable` | the server cannot decode its Write-Ahead Log for Bemi: settings, slot, publication or rights |
 * | `worker_running` | a worker holds what would be changed |
 * | `usage` | the call or the command line is wrong |
 */
export type BemiErrorCode =
  | "conflict"
  | "connection_failed"
  | "context_invalid"
  | "decode_failed"
  | "invalid_name"
  | "gap"
  | "history_unknown"
  | "lock_timeout"
  | "log_behind"
  | "missing_package"
  | "not_found"
  | "not_trackable"
  | "privilege_missing"
  | "schema_incompatible"
  | "schema_missing"
  | "table_missing"
  | "unsupported_client"
  | "usage"
  | "wal_unavailable"
  | "worker_running";

/** What every failure that Bemi itself reports is thrown as: a stable code, a sentence, and the remedy. */
export class BemiError extends Error {
  /** `BemiError`, whatever a minifier makes of the class. */
  override readonly name: string = "BemiError";
  /** One of the documented codes; match on this, never on the message. */
  readonly code: BemiErrorCode;
  /** What to do about it, where that is known. */
  readonly hint: string | undefined;

  /** Made by Bemi alone; applications catch it. */
  constructor(
    code: BemiErrorCode,
    message: string,
    options: { readonly hint?: string | undefined; readonly cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.hint = options.hint;
  }
}
