import postgres from "postgres";
import { withContext } from "../mod.ts";
import { withBemi } from "../src/adapters/postgres.ts";
import { install, track } from "../src/install/mod.ts";
import { createSlot } from "../src/worker/mod.ts";
import { startServer } from "../test/support/servers.ts";
import { compare, type Subject } from "./measure.ts";

const STATEMENTS = 2000;

/** What an application's single-row write pays, one after the other on one connection. */
export async function overhead(version: string): Promise<void> {
  const server = await startServer(version, ["fsync=on", "synchronous_commit=off"]);
  try {
    const sql = postgres(server.url(), { max: 1, onnotice() {} });
    const bemi = withBemi(sql);
    await install(sql);
    await createSlot(sql);
    for (const table of ["bare", "wal", "by_trigger"]) {
      await sql.unsafe(
        `create table ${table} (id bigint generated always as identity primary key, task text)`,
      );
    }
    await track(sql, "wal", { capture: "wal" });
    await track(sql, "by_trigger", { capture: "trigger" });
    const each = (name: string, write: () => Promise<unknown>): Subject => ({
      name,
      run: async () => {
        for (let i = 0; i < STATEMENTS; i++) await write();
        return STATEMENTS;
      },
    });
    const within = (table: string) => () =>
      withContext({ user_id: 1 }, () => bemi`insert into ${bemi(table)} (task) values (${"Sleep"})`);
    await compare(`single-row INSERTs, PostgreSQL ${version}, synchronous_commit off`, [
      each("untracked", async () => await sql`insert into bare (task) values (${"Sleep"})`),
      each(
        "untracked, in sql.begin",
        () => sql.begin((tx) => tx`insert into bare (task) values (${"Sleep"})`),
      ),
      each(
        "tracked from the WAL, no context",
        async () => await sql`insert into wal (task) values (${"Sleep"})`,
      ),
      each("tracked from the WAL, in a context", within("wal")),
      each("tracked by triggers, in a context", within("by_trigger")),
    ], { rounds: 5, unit: "writes/s" });
    await sql.end();
  } finally {
    await server.remove();
  }
}
