import type { Command } from "commander";
import { type Change, changesJson, type Operation, OPERATIONS } from "../../history/mod.ts";
import { sqlstateOf } from "../../database/sqlstate.ts";
import { BemiError } from "../../errors.ts";
import { withConnection } from "../connection.ts";
import type { Io } from "../io.ts";
import { requireKnownTable } from "../known-table.ts";
import {
  type ConnectionOptions,
  jsonObject,
  operation,
  positiveInteger,
  timestamp,
  withConnectionOptions,
} from "../options.ts";
import { psqlTable } from "../psql-table.ts";

interface Options extends ConnectionOptions {
  readonly context?: string;
  readonly operation?: Operation;
  readonly since?: string;
  readonly until?: string;
  readonly limit?: number;
  readonly json?: true;
}

export function addChanges(program: Command, io: Io): void {
  withConnectionOptions(program.command("changes"))
    .description("show the changes of a table, of a row, or all, oldest first")
    .argument("[table]", "a tracked table, with or without its schema")
    .argument("[key]", "the primary key's text, or a JSON array of several columns")
    .option("--context <json>", "whose context contains this", jsonObject)
    .option("--operation <operation>", `one of ${OPERATIONS.join(", ")}`, operation)
    .option("--since <time>", "committed at or after", timestamp)
    .option("--until <time>", "committed before", timestamp)
    .option("--limit <n>", "the latest so many (default: 100 as a table, all as JSON)", positiveInteger)
    .option("--json", "one JSON object a line, numbers exact")
    .addHelpText(
      "after",
      `
Examples:
  bemi changes todos 42
  bemi changes --context '{"user_id": 7}' --since 2026-11-01 --json`,
    )
    .action(async (table: string | undefined, key: string | undefined, options: Options) => {
      const { databaseUrl, json, ...filter } = options;
      const limit = options.limit ?? (json ? undefined : 100);
      const lines = await withConnection(databaseUrl, io, async (sql) => {
        const found = await changesJson(sql, { ...filter, table, key, limit }).catch(explainTime);
        if (found.length === 0 && table !== undefined) await requireKnownTable(sql, filter.schema, table);
        return found;
      });
      io.out(json ? lines.map((line) => `${line}\n`).join("") : changesTable(lines));
    });
}

/** What looks like a time, and is none to the server: another time zone, an hour of 25. */
function explainTime(error: unknown): never {
  if (!/^220(?:07|08|23)$/.test(sqlstateOf(error) ?? "")) throw error;
  throw new BemiError("usage", "--since or --until is no time that PostgreSQL knows", {
    hint: "Write a time such as 2026-11-01 or '2026-11-01 12:00:00+00'.",
    cause: error,
  });
}

const COLUMNS = ["primary_key", "table", "operation", "before", "after", "context", "committed_at"] as const;

/** Changes in the shape of psql's listing. */
export function changesTable(lines: readonly string[]): string {
  return psqlTable(
    COLUMNS,
    lines.map((line) => {
      const change = JSON.parse(line) as Change;
      return COLUMNS.map((column) => {
        const value = change[column];
        if (column === "committed_at") return `${String(value).slice(0, 19).replace("T", " ")}+00`;
        return typeof value === "object" && value !== null ? JSON.stringify(value) : value;
      });
    }),
  );
}
