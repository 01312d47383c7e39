import { BemiError } from "../errors.ts";
import { DEFAULT_SCHEMA, quoteLiteral } from "../identifiers.ts";
import { type InstallSqlOptions, installStatements } from "./install.ts";
import { inSchema } from "./schema.ts";
import { splitStatements } from "./split-statements.ts";
import type { TrackOptions } from "./track.ts";

/** A tool that runs migrations, or `sql` for psql and others that run a script statement by statement. */
export type MigrationKind = "drizzle" | "prisma" | "sql" | "supabase";

/** Options of {@linkcode migration}. */
export interface MigrationOptions extends InstallSqlOptions {
  /** The tables to track, written as in SQL; `all` for every table, and from then on each new one. */
  readonly tables?: readonly string[] | "all" | undefined;
  /**
   * How the tables are to be captured.
   * @default "trigger"
   */
  readonly capture?: TrackOptions["capture"] | undefined;
}

/**
 * The installation, or an upgrade, and the tracking of tables, as one migration in the form that a tool expects.
 *
 * A slot cannot be made in a transaction that has written, and would keep a tool's shadow database from being dropped:
 * only `sql` makes it.
 *
 * @throws {BemiError} `usage`, `invalid_name`
 * @example
 * ```ts
 * import { migration } from "@bemi/core/install";
 * console.log(migration("drizzle", { tables: ["todos", "app.lists"] }));
 * ```
 */
export function migration(kind: MigrationKind, options: MigrationOptions = {}): string {
  const { schema = DEFAULT_SCHEMA, tables = [], capture = "trigger", from } = options;
  if (tables !== "all" && tables.some((table) => table.trim() === "")) {
    throw new BemiError("usage", "A table's name is empty", { hint: "Write it as in SQL: todos, app.lists" });
  }
  const isTracking = tables === "all" || tables.length > 0;
  const needsSlot = isTracking && capture === "wal";
  const installation = installStatements({ schema, from });
  const publication = needsSlot ? inSchema(schema, 'select "bemi".ensure_publication();\n') : "";
  const tracking = isTracking ? trackingStatements(tables, schema, capture) : "";
  const note = needsSlot ? inSchema(schema, NOTE) : "";
  switch (kind) {
    case "sql":
      return `begin;\n${installation}${publication}commit;\n${
        needsSlot ? inSchema(schema, SLOT) : ""
      }${tracking}`;
    case "prisma":
    case "supabase":
      return `${note}begin;\n${installation}${publication}${tracking}commit;\n`;
    case "drizzle":
      return note + splitStatements(installation + publication + tracking)
        .join(";\n--> statement-breakpoint\n") +
        ";\n";
  }
}

const SLOT = `
-- In a transaction of its own, which has written nothing yet.
select pg_create_logical_replication_slot("bemi".slot_name(), 'pgoutput')
where not exists (select from pg_replication_slots where slot_name = "bemi".slot_name());
`;

const NOTE =
  `-- The replication slot cannot be made in a migration. Changes are recorded from the moment that it is there:
--   bemi init --capture wal, or: select pg_create_logical_replication_slot("bemi".slot_name(), 'pgoutput')
`;

function trackingStatements(tables: readonly string[] | "all", schema: string, capture: string): string {
  if (tables === "all") {
    return inSchema(
      schema,
      `
update "bemi".settings set track_all = true, capture = '${capture}';
select "bemi".reconcile();
`,
    );
  }
  // A table may be called like the token.
  const tracked = tables.map((table) =>
    `${inSchema(schema, 'select "bemi".track(')}${quoteLiteral(table)}, '{"capture": "${capture}"}');\n`
  );
  return `\n${tracked.join("")}`;
}
