import { type Command, Option } from "commander";
import { BemiError } from "../../errors.ts";
import {
  type ConflictChoice,
  planRevert,
  revert,
  type RevertConflict,
  type RevertPlan,
  RevertRefused,
  revertScript,
  type RevertUnit,
} from "../../history/mod.ts";
import { withConnection } from "../connection.ts";
import { Drift } from "../exit.ts";
import type { Io } from "../io.ts";
import {
  changeId,
  type ConnectionOptions,
  explainTime,
  jsonObject,
  timestamp,
  transactionName,
  withConnectionOptions,
} from "../options.ts";
import { paint } from "../paint.ts";
import { printable } from "../printable.ts";

interface Options extends ConnectionOptions {
  readonly change?: string;
  readonly transaction?: string;
  readonly context?: string;
  readonly to?: string;
  readonly onConflict: ConflictChoice;
  readonly yes?: true;
  readonly json?: true;
  readonly sql?: true;
}

export function addRevert(program: Command, io: Io): void {
  withConnectionOptions(program.command("revert"))
    .description("take changes back: shows what it comes to, and does it with --yes")
    .argument("[table]", "with --to: a table, or with a key, one of its rows")
    .argument("[key]", "the primary key's text, or a JSON array of several columns")
    .option("--change <id>", "one change", changeId)
    .option(
      "--transaction <id>",
      "a transaction: the transaction_id of its changes, or its key in changes --group-by transaction",
      transactionName,
    )
    .option("--context <json>", "everything whose context contains this", jsonObject)
    .option("--to <time>", "back to how it was at this time", timestamp)
    .addOption(
      new Option("--on-conflict <choice>", "with rows that cannot be taken back just so")
        .choices(["refuse", "skip", "force"]).default("refuse"),
    )
    .option("--yes", "do it")
    .option("--sql", "print a script that does it, and do nothing")
    .option("--json", "one JSON object a line: the statements, then the conflicts")
    .addHelpText(
      "after",
      `
Examples:
  bemi revert --context '{"request_id": "4f1c"}'          what it would take to undo a request
  bemi revert --context '{"request_id": "4f1c"}' --yes    undo it
  bemi revert todos 42 --to '2026-11-03 09:00' --yes      a row as it was on Tuesday
  bemi revert --transaction 8231 --sql | psql "$DATABASE_URL"

Exits with 1 where a conflict is in the way.`,
    )
    .action(async (table: string | undefined, key: string | undefined, options: Options) => {
      const { databaseUrl, schema, onConflict } = options;
      const unit = unitOf(table, key, options);
      await withConnection(databaseUrl, io, async (sql) => {
        try {
          if (options.sql) {
            io.out(await revertScript(sql, unit, { schema, onConflict }));
            return;
          }
          const plan = await (options.yes ? revert : planRevert)(sql, unit, { schema, onConflict });
          show(plan, io, options);
        } catch (error) {
          if (!(error instanceof RevertRefused)) explainTime(error);
          // The values of a plan are no script, and psql would run what is in them.
          show(error.plan, options.sql ? { ...io, out: io.err } : io, options);
        }
      });
    });
}

/** @throws {BemiError} `usage` */
function unitOf(table: string | undefined, key: string | undefined, options: Options): RevertUnit {
  const { change, transaction, context, to } = options;
  const given = [change, transaction, context, table].filter((part) => part !== undefined);
  if (given.length !== 1 || (table === undefined) !== (to === undefined)) {
    throw new BemiError("usage", "Say what to revert, in one way", {
      hint: "Pass --change, --transaction, --context, or a table with --to; see bemi revert --help.",
    });
  }
  if (change !== undefined) return { change };
  if (context !== undefined) return { context };
  if (transaction !== undefined) return { transaction };
  return key === undefined ? { table: table ?? "", to: to ?? "" } : { table: table ?? "", key, to: to ?? "" };
}

/** @throws {Drift} where a conflict stood in the way */
function show(plan: RevertPlan, io: Io, { yes, json, onConflict }: Options): void {
  const { statements, conflicts } = plan;
  const isRefused = conflicts.some(({ kind, canForce }) =>
    kind === "refused" || onConflict === "refuse" || onConflict === "force" && !canForce
  );
  const isDone = yes === true && !isRefused;
  if (json) {
    for (const statement of statements) {
      // Each column is JSON text already: its numbers stay exact.
      const columns = Object.entries(statement.columns).map(([name, value]) =>
        `${JSON.stringify(name)}: ${value}`
      );
      const rest = JSON.stringify({ ...statement, columns: undefined });
      io.out(`${rest.slice(0, -1)},"columns":{${columns.join(", ")}}}\n`);
    }
    for (const conflict of conflicts) io.out(`${JSON.stringify({ conflict })}\n`);
  } else {
    for (const { operation, schema, table, key, columns } of statements) {
      const set = Object.entries(columns).map(([name, value]) => `  ${name} = ${value}\n`).join("");
      io.out(
        `${paint(io, COLOURS[operation], operation)} ${
          printable(`${schema}.${table} ${key ?? "(a row without a key)"}\n${set}`)
        }`,
      );
    }
    for (const conflict of conflicts) {
      io.out(`${paint(io, "magenta", "CONFLICT")} ${printable(describe(conflict))}\n`);
    }
  }
  const count = `${plan.changes} ${plan.changes === 1 ? "change" : "changes"}`;
  if (statements.length === 0 && conflicts.length === 0) io.err("Nothing to revert\n");
  else if (isDone) io.err(`Reverted ${count}\n`);
  else if (isRefused) {
    io.err(`Nothing was changed: ${conflicts.length} in conflict. Choose --on-conflict skip or force.\n`);
  } else io.err(`This takes back ${count}. To do it, add --yes.\n`);
  if (isRefused) throw new Drift();
}

const COLOURS = { INSERT: "green", UPDATE: "yellow", DELETE: "red" } as const;

function describe({ kind, schema, table, key, columns, changes, message, canForce }: RevertConflict): string {
  const where = `${schema}.${table}${key === null ? "" : ` ${key}`}${
    columns.length > 0 ? ` (${columns.join(", ")})` : ""
  }`;
  const by = changes.length > 0
    ? `\n  see: ${changes.map((id) => `bemi revert --change ${id}`).join("; ")}`
    : "";
  return `${kind} ${where}\n  ${message}${canForce ? "" : "; cannot be forced"}${by}`;
}
