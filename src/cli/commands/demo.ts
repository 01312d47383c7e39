import { type Command, Option } from "commander";
import { BemiError } from "../../errors.ts";
import { connectionTarget } from "../connection.ts";
import {
  type DemoDatabase,
  embeddedDatabase,
  embeddedServerDatabase,
  optional,
  serverDatabase,
} from "../demo/database.ts";
import type { Io } from "../io.ts";
import { psqlTable } from "../psql-table.ts";

const COLUMNS =
  `"primary_key", "table", "operation", "before", "after", "context" - 'db' AS "context", "committed_at"`;

interface Options {
  readonly capture: "trigger" | "wal";
  readonly databaseUrl?: string;
}

export function addDemo(program: Command, io: Io): void {
  program.command("demo")
    .description("watch a Hono application's changes being recorded, on an embedded database")
    .addOption(
      new Option("--capture <path>", "by triggers, or by a worker from the Write-Ahead Log")
        .choices(["trigger", "wal"]).default("trigger"),
    )
    .option("--database-url <url>", "with --capture wal: a server, for a database of the demo's own")
    .addHelpText(
      "after",
      `
Examples:
  bemi demo
  bemi demo --capture wal --database-url postgres://postgres@localhost/postgres`,
    )
    .action(async (options: Options) => {
      const { todoApp } = await optional(() => import("../demo/app.ts"), "hono");
      await using db = await open(options, io);
      const app = todoApp(db);
      io.err("Five requests to a todo application\n");
      for (const [method, path, body] of REQUESTS) {
        io.err(`  ${method} ${path}${body ? ` ${body}` : ""}\n`);
        const response = await app.request(path, {
          method,
          headers: { "x-user-id": "187234" },
          ...(body === undefined ? {} : { body }),
        });
        if (!response.ok) {
          throw new BemiError("connection_failed", `The demo's request ${method} ${path} failed`);
        }
      }
      const show = async (condition: string): Promise<void> => {
        await db.settle();
        io.err(`\nSELECT ${COLUMNS} FROM changes${condition};\n\n`);
        io.out(await printed(db, condition));
      };
      await show("");

      const update = "UPDATE todo SET task = 'Eat well' WHERE id = 1";
      io.err(`\nAnd one change that the application knows nothing of\n  ${update}\n`);
      await db.query(update);
      await show(` WHERE "after" @> '{"task": "Eat well"}'`);
    });
}

async function open({ capture, databaseUrl }: Options, io: Io): Promise<DemoDatabase> {
  if (capture === "trigger") {
    if (databaseUrl === undefined) return await embeddedDatabase();
    throw new BemiError("usage", "The demo by triggers has a database of its own", {
      hint: "Leave out --database-url, or add --capture wal.",
    });
  }
  if (databaseUrl !== undefined) return await serverDatabase(connectionTarget(databaseUrl, io.env));
  try {
    return await embeddedServerDatabase();
  } catch (error) {
    const isInstalled = !(error instanceof BemiError && error.code === "missing_package");
    if (isInstalled || io.env.DATABASE_URL === undefined) throw error;
    return await serverDatabase(connectionTarget(undefined, io.env));
  }
}

const REQUESTS: readonly (readonly [method: string, path: string, body?: string])[] = [
  ["POST", "/todo", '{"task": "Sleep"}'],
  ["POST", "/todo", '{"task": "Eat"}'],
  ["POST", "/todo", '{"task": "Repeat"}'],
  ["PUT", "/todo/complete?id=1"],
  ["DELETE", "/todo/2"],
];

async function printed(db: DemoDatabase, condition: string): Promise<string> {
  // As text from the server, so that what is shown is what psql would show.
  const { rows } = await db.query(
    `SELECT primary_key, "table", operation, before::text, after::text, (context - 'db')::text AS context,
      date_trunc('second', committed_at)::text AS committed_at
    FROM changes ${condition} ORDER BY position, id`,
  );
  const columns = ["primary_key", "table", "operation", "before", "after", "context", "committed_at"];
  return psqlTable(
    columns,
    rows.map((row) => columns.map((column) => (row as Record<string, string | null>)[column] ?? null)),
  );
}
