import pg from "pg";
import { expect, test } from "vitest";
import { migration, type MigrationKind } from "../src/install/mod.ts";
import { splitStatements } from "../src/install/split-statements.ts";
import { onEachServer, type TestDatabase } from "./support/databases.ts";
import { createSlot, install, runWorker, SCHEMA, track } from "./support/installation.ts";
import { fingerprint } from "./support/fingerprint.ts";
import { seen, TODOS } from "./support/todos.ts";

interface Statement {
  readonly text: string;
  readonly values?: readonly string[];
}

/** What pg calls a connection, as far as a batch needs it. */
interface Connection {
  parse(message: object, more: boolean): void;
  bind(message: object, more: boolean): void;
  execute(message: object, more: boolean): void;
  sync(): void;
}

/** Sends statements by the extended protocol with one Sync behind them: they are one implicit transaction. */
function sendBatch(client: pg.Client, statements: readonly Statement[]): Promise<void> {
  return new Promise((done, fail) => {
    let [completed, failure]: [number, unknown] = [0, undefined];
    const ignored = () => {};
    const batch = {
      submit: (connection: Connection): void => {
        for (const { text, values = [] } of statements) {
          connection.parse({ text }, true);
          connection.bind({ values }, true);
          connection.execute({}, true);
        }
        connection.sync();
      },
      handleRowDescription: ignored,
      handleDataRow: ignored,
      handleEmptyQuery: ignored,
      handleCommandComplete: () => void completed++,
      handleError: (error: Error) => {
        failure = new Error(`At statement ${completed}: ${statements[completed]?.text}`, { cause: error });
      },
      handleReadyForQuery: () => failure === undefined ? done() : fail(failure),
    };
    client.query(batch as unknown as pg.Submittable);
  });
}

const LEDGER: readonly Statement[] = [
  "SET lock_timeout = '4s'",
  "CREATE SCHEMA IF NOT EXISTS supabase_migrations",
  "CREATE TABLE IF NOT EXISTS supabase_migrations.schema_migrations (version text NOT NULL PRIMARY KEY)",
  "ALTER TABLE supabase_migrations.schema_migrations ADD COLUMN IF NOT EXISTS statements text[]",
  "ALTER TABLE supabase_migrations.schema_migrations ADD COLUMN IF NOT EXISTS name text",
].map((text) => ({ text }));

const RECORD =
  "INSERT INTO supabase_migrations.schema_migrations(version, name, statements) VALUES($1, $2, $3)";

const arrayText = (texts: readonly string[]): string =>
  `{${texts.map((text) => `"${text.replace(/["\\]/g, "\\$&")}"`).join()}}`;

/**
 * What `supabase migration up` and `supabase db push` do (supabase/cli on GitHub, pkg/migration/history.go and file.go):
 * the ledger in one batch, then each file in one of its own, with its row in the ledger at the end.
 */
async function applyMigrations(
  { url = "" }: TestDatabase,
  files: readonly (readonly [version: string, name: string, sql: string])[],
): Promise<void> {
  const client = new pg.Client(url);
  await client.connect();
  try {
    await sendBatch(client, LEDGER);
    for (const [version, name, sql] of files) {
      const statements = splitStatements(sql);
      const values = [version, name, arrayText(statements)];
      await sendBatch(client, [...statements.map((text) => ({ text })), { text: RECORD, values }]);
    }
  } finally {
    await client.end();
  }
}

/** Without the ledger, and numbers that a name has from an OID. */
const catalog = async ({ port }: TestDatabase): Promise<string[]> =>
  (await fingerprint(port)).map((line) => line.replace(/(bemi\w*_reconcile)_\d+/, "$1"))
    .filter((line) => !line.includes("supabase_migrations"));

onEachServer("a migration for Supabase", (open) => {
  test.each(["trigger", "wal"] as const)(
    "is applied and recorded as its command line does both, among others, captured by %s",
    async (capture) => {
      await using by = await open();
      await by.port.execute(TODOS);
      await install(by.db);
      if (capture === "wal") await createSlot(by.db);
      for (const table of ["todos", "lists"]) await track(by.db, table, { capture });

      await using database = await open();
      const kind: MigrationKind = "supabase";
      const text = migration(kind, { tables: ["todos", "lists"], capture, schema: SCHEMA });
      await applyMigrations(database, [
        ["20260101000000", "first", TODOS],
        ["20260102000000", "bemi", text],
        [
          "20260103000000",
          "third",
          "alter table todos add note text;\ncomment on table todos is 'with; notes';",
        ],
      ]);
      await by.port.execute("alter table todos add note text; comment on table todos is 'with; notes'");
      expect(await catalog(database)).toEqual(await catalog(by));
      const ledger = await database.port.query<{ version: string; name: string; statements: string }>(
        "select version, name, array_to_string(statements, ';') as statements from supabase_migrations.schema_migrations order by version",
      );
      expect(ledger.map(({ version, name }) => `${version}_${name}`)).toEqual([
        "20260101000000_first",
        "20260102000000_bemi",
        "20260103000000_third",
      ]);
      // What a pull of the ledger writes back is the migration.
      expect(splitStatements(ledger[1]?.statements ?? "")).toEqual(splitStatements(text));

      if (capture === "wal") await createSlot(database.db);
      await database.port.execute("insert into todos (task, note) values ('Sleep', 'well')");
      if (capture === "wal") await runWorker({ source: database.url, once: true }).finished;
      expect((await seen(database.port)).map(({ operation, after }) => [operation, after.note]))
        .toEqual([["CREATE", "well"]]);
    },
  );

  test("that fails leaves nothing, neither of Bemi's nor in the ledger", async () => {
    await using database = await open();
    const text = migration("supabase", { tables: ["todos"], schema: SCHEMA });
    const before = await catalog(database);
    await expect(applyMigrations(database, [["20260102000000", "bemi", text]])).rejects.toThrow(
      /At statement \d+/,
    );
    expect(await catalog(database)).toEqual(before);
    expect(await database.port.query("select from supabase_migrations.schema_migrations")).toEqual([]);
  });
});
