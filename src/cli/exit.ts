import { BemiError, type BemiErrorCode } from "../errors.ts";
import { sqlstateOf } from "../database/sqlstate.ts";
import { sourceOf } from "./connection.ts";
import type { Io } from "./io.ts";

export const EXIT = { ok: 0, failure: 1, usage: 2, connection: 3, schema: 4, gap: 5 } as const;

const CODES: Partial<Record<BemiErrorCode, number>> = {
  usage: EXIT.usage,
  invalid_name: EXIT.usage,
  table_missing: EXIT.usage,
  connection_failed: EXIT.connection,
  gap: EXIT.gap,
  schema_missing: EXIT.schema,
  schema_incompatible: EXIT.schema,
};

// Where the library's names options that the command line has not.
const HINTS: Partial<Record<BemiErrorCode, string>> = {
  log_behind: "Run: bemi worker, or bemi-poll --once; see bemi doctor.",
};

/** Ends with 1, when all has been said. */
export class Drift extends Error {}

/** Says what went wrong and what to do, and returns the exit code for it. */
export function report(error: unknown, io: Io): number {
  if (error instanceof Drift) return EXIT.failure;
  if (error instanceof BemiError) {
    const hint = HINTS[error.code] ?? error.hint;
    io.err(`bemi: ${error.message}\n${hint ? `  ${hint}\n` : ""}`);
    return CODES[error.code] ?? EXIT.failure;
  }
  const refused = connectionProblem(error);
  if (refused) {
    const remedy = refused === REFUSALS["28000"]
      ? "See pg_hba.conf: it may want TLS (sslmode in the URL), a client's certificate (sslcert, sslkey) or another role."
      : `Check ${sourceOf(io.env)}.`;
    io.err(`bemi: Cannot connect to the database: ${refused}\n  ${remedy}\n`);
    return EXIT.connection;
  }
  // PostgreSQL's messages may quote values, its code never does.
  const state = sqlstateOf(error);
  const [said, remedy] = EXPLAINED[state ?? ""] ?? ["PostgreSQL refused a statement"];
  io.err(`bemi: ${state ? `${said} (SQLSTATE ${state})` : String(error)}\n${remedy ? `  ${remedy}\n` : ""}`);
  return EXIT.failure;
}

const EXPLAINED: Readonly<Record<string, readonly [said: string, remedy: string]>> = {
  "25006": ["The server takes no writes", "It is a standby, or read-only: connect to the primary."],
  "40P01": ["Another session's locks were in the way", "Run this again."],
  "42501": [
    "This role lacks a right",
    "Run this as the owner of Bemi's schema. To read the log, bemi_reader is enough: see bemi generate roles.",
  ],
  "42704": [
    "PostgreSQL does not know a name that it was given",
    "If the URL has parameters behind a question mark, they have to be settings of PostgreSQL's; else see bemi doctor.",
  ],
  "53100": ["The server's disk is full", "Make room there, then run this again."],
  "55P03": [
    "What this needs stayed locked by other sessions",
    "Run this again when no long transaction is open: see pg_stat_activity.",
  ],
  "57014": ["The statement was cancelled", "If statement_timeout is set for this role, raise it."],
};

const REFUSALS: Readonly<Record<string, string>> = {
  "08001": "the server refused the connection",
  "08006": "the connection broke",
  "28000": "the role may not connect, or there is none of that name",
  "28P01": "wrong password, or no such role",
  "3D000": "no such database",
  "53300": "too many connections",
  "57P03": "the server is starting up",
  CONNECT_NO_HOST: "none of the hosts is what target_session_attrs asks for",
  CONNECT_TIMEOUT: "no answer in time",
  CONNECTION_CLOSED: "the connection closed",
  CONNECTION_DESTROYED: "the connection closed",
  CONNECTION_ENDED: "the connection closed",
  EAI_AGAIN: "the host name cannot be looked up",
  ECONNREFUSED: "nothing listens there",
  ECONNRESET: "the connection was reset",
  EHOSTUNREACH: "the host cannot be reached",
  ENOENT: "no such socket",
  ENOTFOUND: "no such host",
  ETIMEDOUT: "no answer in time",
};

/** In words, what an SQLSTATE or a system's code means, as far as that is known. */
export function meaningOf(code: string): string | undefined {
  return REFUSALS[code] ?? EXPLAINED[code]?.[0];
}

function connectionProblem(error: unknown): string | undefined {
  if (typeof error !== "object" || error === null) return undefined;
  if (error instanceof AggregateError && error.errors.length > 0) return connectionProblem(error.errors[0]);
  return REFUSALS[String((error as { code?: unknown }).code)];
}
