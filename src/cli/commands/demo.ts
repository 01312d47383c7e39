import { type Command, Option } from "commander";
import { BemiError } from "../../errors.ts";
import { install, track } from "../../install/mod.ts";
import { withBemi } from "../../adapters/pglite.ts";
import type { Io } from "../io.ts";
import { psqlTable } from "../psql-table.ts";

const COLUMNS =
  `"primary_key", "table", "operation", "before", "after", "context" - 'db' AS "context", "committed_at"`;

export function addDemo(program: Command, io: Io): void {
  program.command("demo")
    .description("watch a Hono application's changes being recorded, on an embedded database")
    .addOption(
      new Option("--capture <path>", "how changes are captured").choices(["trigger", "wal"]).default(
        "trigger",
      ),
    )
    .action(async ({ capture }: { capture: "trigger" | "wal" }) => {
      if (capture === "wal") {
        throw new BemiError("usage", "Capture through the Write-Ahead Log is not available in this version", {
          hint: "Use --capture trigger.",
        });
      }
      const { PGlite } = await optional(() => import("@electric-sql/pglite"), "@electric-sql/pglite");
      const { todoApp } = await optional(() => import("../demo/app.ts"), "hono");
      const db = withBemi(await PGlite.create());
      try {
        await db.exec(
          "CREATE TABLE todo (id serial PRIMARY KEY, task text NOT NULL, is_completed boolean NOT NULL DEFAULT false)",
        );
        await install(db);
        await track(db, "todo");

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
          io.err(`\nSELECT ${COLUMNS} FROM changes${condition};\n\n`);
          io.out(await printed(db, condition));
        };
        await show("");

        const update = "UPDATE todo SET task = 'Eat well' WHERE id = 1";
        io.err(`\nAnd one change that the application knows nothing of\n  ${update}\n`);
        await db.exec(update);
        await show(` WHERE "after" @> '{"task": "Eat well"}'`);
      } finally {
        await db.close();
      }
    });
}

const REQUESTS: readonly (readonly [method: string, path: string, body?: string])[] = [
  ["POST", "/todo", '{"task": "Sleep"}'],
  ["POST", "/todo", '{"task": "Eat"}'],
  ["POST", "/todo", '{"task": "Repeat"}'],
  ["PUT", "/todo/complete?id=1"],
  ["DELETE", "/todo/2"],
];

async function printed(
  db: { query(sql: string): Promise<{ rows: unknown[] }> },
  condition: string,
): Promise<string> {
  // As text from the server, so that what is shown is what psql would show.
  const { rows } = await db.query(
    `SELECT primary_key, "table", operation, before::text, after::text, (context - 'db')::text AS context,
      date_trunc('second', committed_at)::text AS committed_at
    FROM changes ${condition} ORDER BY position`,
  );
  const columns = ["primary_key", "table", "operation", "before", "after", "context", "committed_at"];
  return psqlTable(
    columns,
    rows.map((row) => columns.map((column) => (row as Record<string, string | null>)[column] ?? null)),
  );
}

async function optional<M>(load: () => Promise<M>, name: string): Promise<M> {
  try {
    return await load();
  } catch (error) {
    if ((error as { code?: unknown }).code !== "ERR_MODULE_NOT_FOUND") throw error;
    throw new BemiError("missing_package", `The demo needs the package ${name}`, {
      hint: `Install it: npm install ${name}`,
      cause: error,
    });
  }
}
