import { type Command, InvalidArgumentError } from "commander";
import { sqlstateOf } from "../database/sqlstate.ts";
import { BemiError } from "../errors.ts";
import { type Operation, OPERATIONS } from "../history/mod.ts";
import { readTransactionName } from "../history/transaction-name.ts";
import { quoteSchema } from "../identifiers.ts";
import { mostSimilar } from "../similar.ts";

/** The options of every command that talks to a database. */
export interface ConnectionOptions {
  readonly databaseUrl?: string;
  readonly schema: string;
}

export function withConnectionOptions(command: Command): Command {
  return withSchemaOption(
    command.option("--database-url <url>", "the database (default: DATABASE_URL, PG* or DB_* variables)"),
  );
}

export function withSchemaOption(command: Command): Command {
  return command.option("--schema <name>", "the schema that holds everything of Bemi's", schemaName, "bemi");
}

/** Refused before anything is connected to. */
function schemaName(text: string): string {
  quoteSchema(text);
  return text;
}

export function positiveInteger(text: string): number {
  if (/^[1-9]\d{0,14}$/.test(text)) return Number(text);
  throw new InvalidArgumentError("Write a whole number from 1.");
}

/** Bytes, as PostgreSQL writes sizes. */
export function bytes(text: string): number {
  const [, digits, unit = "B"] = /^(\d{1,9})(B|kB|MB|GB|TB)?$/.exec(text) ?? [];
  const power = ["B", "kB", "MB", "GB", "TB"].indexOf(unit);
  if (digits) return Number(digits) * 1024 ** power;
  throw new InvalidArgumentError("Write a size such as 100MB.");
}

/** `PORT` of the loopback interface, or `HOST:PORT`. */
export function address(text: string): { readonly host: string; readonly port: number } {
  const [, ipv6, name, digits] = /^(?:\[([0-9a-fA-F:]+)\]:|([^:\s/]+):)?(\d{1,5})$/.exec(text) ?? [];
  if (digits && Number(digits) < 65536) return { host: ipv6 ?? name ?? "127.0.0.1", port: Number(digits) };
  throw new InvalidArgumentError("Write a port such as 9187, or 0.0.0.0:9187.");
}

export function jsonObject(text: string): string {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return text;
  } catch {
    // Falls through to the same remedy.
  }
  throw new InvalidArgumentError(`Write a JSON object, such as '{"user_id": 42}'.`);
}

const TIME_HINT = "Write a time such as 2026-11-01 or '2026-11-01 12:00:00+00'.";

/** A point in time as PostgreSQL reads it; checked here as far as it can be without asking. */
export function timestamp(text: string): string {
  if (
    /^\d{4,6}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?)?( ?(Z|[+-]\d\d(:?\d\d)?|[A-Za-z/_]+))?$/.test(text)
  ) {
    const [date = ""] = text.split(/[T ]/);
    const day = new Date(`${date}T00:00:00Z`);
    if (date.length > 10 || (!Number.isNaN(day.getTime()) && day.toISOString().startsWith(date))) return text;
  }
  throw new InvalidArgumentError(TIME_HINT);
}

/** What looks like a time, and is none to the server: another time zone, an hour of 25. */
export function explainTime(error: unknown): never {
  if (!/^220(?:07|08|23)$/.test(sqlstateOf(error) ?? "")) throw error;
  throw new BemiError("usage", "That is no time that PostgreSQL knows", {
    hint: TIME_HINT,
    cause: error,
  });
}

export function operation(text: string): Operation {
  const found = OPERATIONS.find((name) => name === text.toUpperCase());
  if (found) return found;
  const meant = text.toUpperCase() === "INSERT" ? "CREATE" : mostSimilar(text, OPERATIONS);
  throw new InvalidArgumentError(
    `${meant === undefined ? "" : `Did you mean ${meant}? `}Allowed choices are ${OPERATIONS.join(", ")}.`,
  );
}

/** A change's id, as the log has it. */
export function changeId(text: string): string {
  if (/^[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12}$/i.test(text)) return text;
  throw new InvalidArgumentError("Write the id of a change, a UUID: see bemi changes --json.");
}

/** A transaction as a change or a group names it: see {@linkcode readTransactionName}. */
export function transactionName(text: string): string {
  if (readTransactionName(text)) return text;
  throw new InvalidArgumentError(
    "Write the transaction_id of a change, or a key of: bemi changes --group-by transaction",
  );
}

export function list(text: string): string[] {
  return text.split(",").map((part) => part.trim()).filter((part) => part !== "");
}
