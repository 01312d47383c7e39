import type { Command } from "commander";
import {
  changesJson,
  type Group,
  type GroupBy,
  groups,
  type Operation,
  OPERATIONS,
  TIME_BUCKETS,
} from "../../history/mod.ts";
import { jsonMembers } from "../../json-members.ts";
import { tableName } from "../change-text.ts";
import { withConnection } from "../connection.ts";
import type { Io } from "../io.ts";
import {
  type ConnectionOptions,
  explainTime,
  jsonObject,
  operation,
  positiveInteger,
  timestamp,
  transactionName,
  withConnectionOptions,
} from "../options.ts";
import { psqlTable } from "../psql-table.ts";

interface Options extends ConnectionOptions {
  readonly context?: string;
  readonly operation?: Operation;
  readonly transaction?: string;
  readonly since?: string;
  readonly until?: string;
  readonly limit?: number;
  readonly groupBy?: GroupBy;
  readonly json?: true;
}

export function addChanges(program: Command, io: Io): void {
  withConnectionOptions(program.command("changes"))
    .description("show the changes of a table, of a row, or all, oldest first")
    .argument("[table]", "a tracked table, with or without its schema")
    .argument("[key]", "the primary key's text, or a JSON array of several columns")
    .option("--context <json>", "whose context contains this", jsonObject)
    .option("--operation <operation>", `one of ${OPERATIONS.join(", ")}`, operation)
    .option(
      "--transaction <id>",
      "of this transaction: a transaction_id, or a key of --group-by transaction",
      transactionName,
    )
    .option("--since <time>", "committed at or after", timestamp)
    .option("--until <time>", "committed before", timestamp)
    .option("--limit <n>", "the latest so many (default: 100 as a table, all as JSON)", positiveInteger)
    .option(
      "--group-by <what>",
      `count them by transaction, table, operation, ${
        TIME_BUCKETS.join(", ")
      }, user, or a key of the context`,
      groupBy,
    )
    .option("--json", "one JSON object a line, numbers exact")
    .addHelpText(
      "after",
      `
Examples:
  bemi changes todos 42
  bemi changes --context '{"user_id": 7}' --since 2026-11-01 --json
  bemi changes todos --group-by user_id
  bemi changes --group-by day --operation delete`,
    )
    .action(async (table: string | undefined, key: string | undefined, options: Options) => {
      const { databaseUrl, json, groupBy: by, limit: given, ...narrowed } = options;
      const row = { ...(table === undefined ? {} : { table }), ...(key === undefined ? {} : { key }) };
      const filter = { ...narrowed, ...row };
      if (by !== undefined) {
        const found = await withConnection(
          databaseUrl,
          io,
          (sql) => groups(sql, { ...filter, by, limit: given }).catch(explainTime),
        );
        io.out(json ? found.map((group) => `${JSON.stringify(group)}\n`).join("") : groupsTable(found));
        return;
      }
      const limit = given ?? (json ? undefined : 100);
      const lines = await withConnection(
        databaseUrl,
        io,
        (sql) => changesJson(sql, { ...filter, limit }).catch(explainTime),
      );
      io.out(json ? lines.map((line) => `${line}\n`).join("") : changesTable(lines));
    });
}

const COLUMNS = ["primary_key", "table", "operation", "before", "after", "context", "committed_at"] as const;

/** Changes in the shape of psql's listing. */
function changesTable(lines: readonly string[]): string {
  return psqlTable(
    COLUMNS,
    lines.map((line) => {
      // Images and context stay the text that the server wrote, numbers and all.
      const change = new Map(jsonMembers(line));
      return COLUMNS.map((column) => {
        const text = change.get(column) ?? "null";
        if (text.startsWith("{")) return text;
        const value = JSON.parse(text) as string | null;
        if (column === "table") {
          return tableName({ schema: JSON.parse(change.get("schema") ?? "") as string, table: value ?? "" });
        }
        return column === "committed_at" ? shortTime(value ?? "") : value;
      });
    }),
  );
}

const OPERATION_COLUMNS = OPERATIONS.map((name) => name.toLowerCase());

function groupsTable(found: readonly Group[]): string {
  return psqlTable(
    ["key", "changes", ...OPERATION_COLUMNS, "tables", "first", "last"],
    found.map((group) => [
      group.key,
      String(group.changes),
      ...OPERATIONS.map((name) => String(group.operations[name] ?? "")),
      group.tables.join(", "),
      shortTime(group.first_committed_at),
      shortTime(group.last_committed_at),
    ]),
  );
}

const shortTime = (time: string): string => `${time.slice(0, 19).replace("T", " ")}+00`;

/** A word that is known, else a path in the context; `user` is the database's. */
function groupBy(text: string): GroupBy {
  if (text === "user") return { context: ["db", "user"] };
  const known = ["transaction", "table", "operation", ...TIME_BUCKETS] as const;
  return known.find((word) => word === text) ?? { context: text };
}
