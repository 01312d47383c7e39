import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import postgres from "postgres";
import { withContext } from "@bemi/core";
import { install, track } from "@bemi/core/install";
import { withBemi } from "@bemi/core/postgres";
import { createSlot } from "@bemi/core/worker";
import { type Server, startServer } from "../test/support/servers.ts";
import { openDelayedLink } from "./delayed-link.ts";
import { findClient } from "./find-client.ts";
import { compare, type Subject } from "./measure.ts";

const STATEMENTS = 2000;
const TABLES = ["bare", "wal", "by_trigger"];

/** What an application's single-row write pays: on one connection, over a link with delay, and at saturation. */
export async function overhead(version: string): Promise<void> {
  const server = await startServer(version, ["fsync=on", "synchronous_commit=off"]);
  try {
    await setUp(server);
    const title = (what: string): string => `single-row writes ${what}, PostgreSQL ${version}`;
    await compare(title("one after the other"), client(server.url(), { times: STATEMENTS }), {
      rounds: 5,
      unit: "writes/s",
    });
    using link = await openDelayedLink(Number(new URL(server.url()).port), 1);
    const far = new URL(server.url());
    far.port = String(link.port);
    for (const prepare of [true, false]) {
      const subjects = client(far.href, { times: 100, prepare });
      await compare(title(`over a link of 1 ms each way, prepare: ${prepare}`), subjects.slice(0, 4), {
        rounds: 5,
        unit: "writes/s",
        byTime: true,
      });
    }
    for (const max of [4, 10]) {
      const [bare, begin, ...tracked] = client(server.url(), { times: STATEMENTS, max });
      if (!bare || !begin) throw new Error("No baseline");
      await compare(title(`at saturation, ${max} connections`), [begin, bare, ...tracked], {
        rounds: 5,
        unit: "writes/s",
      });
    }
    await saturated(server, title("by pgbench on 4 connections, context and commit in one round trip"));
  } finally {
    await server.remove();
  }
}

async function setUp(server: Server): Promise<void> {
  const sql = postgres(server.url(), { max: 1, onnotice() {} });
  await install(sql);
  await createSlot(sql);
  for (const table of TABLES) {
    await sql.unsafe(
      `create table ${table} (id bigint generated always as identity primary key, task text);
      insert into ${table} (task) select 'Sleep' from generate_series(1, 10000)`,
    );
  }
  // So that what is compared is the context message alone.
  await sql.unsafe("alter table bare replica identity full");
  await track(sql, "wal", { capture: "wal" });
  await track(sql, "by_trigger", { capture: "trigger" });
  await sql.end();
}

/** The application: postgres.js, as many writes at once as it has connections. */
function client(
  url: string,
  { times, max = 1, prepare = true }: { times: number; max?: number; prepare?: boolean },
): readonly Subject[] {
  const sql = postgres(url, { max, prepare, onnotice() {}, idle_timeout: 2 });
  const bemi = withBemi(sql);
  const each = (name: string, write: () => Promise<unknown>): Subject => ({
    name,
    isHeadline: name.includes("in a context"),
    // Connected, and prepared where it prepares.
    prepare: async () => void await Promise.all(Array.from({ length: max * 2 }, write)),
    run: async () => {
      await Promise.all(Array.from({ length: max }, async () => {
        for (let i = 0; i < times / max; i++) await write();
      }));
      return times;
    },
  });
  const within = (table: string) => () =>
    withContext({ user_id: 1 }, () => bemi`insert into ${bemi(table)} (task) values (${"Sleep"})`);
  return [
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
  ];
}

/** The server alone, where pgbench is installed. */
async function saturated(server: Server, title: string): Promise<void> {
  const pgbench = findClient("pgbench");
  if (!pgbench) {
    console.log("\npgbench is not installed: what the server does at saturation is left out");
    return;
  }
  const folder = mkdtempSync(join(tmpdir(), "bemi-pgbench-"));
  const subject = (name: string, table: string): Subject => {
    const script = join(folder, `${table}.sql`);
    writeFileSync(
      script,
      String.raw`\set id random(1, 10000)
\startpipeline
begin;
select set_config('bemi.context', '{"user_id": 42, "endpoint": "/todos"}', true);
update ${table} set task = 'Wake' where id = :id;
commit;
\endpipeline
`,
    );
    return {
      name,
      isHeadline: table === "wal",
      run: () => {
        const { status, stdout, stderr } = spawnSync(pgbench, [
          ...["--no-vacuum", "--protocol", "prepared", "-c", "4", "-T", "3", "-f", script],
          server.url(),
        ], { encoding: "utf8" });
        const transactions = /actually processed: (\d+)/.exec(stdout);
        if (status !== 0 || !transactions) throw new Error(stderr);
        return Promise.resolve(Number(transactions[1]));
      },
    };
  };
  try {
    await compare(title, [
      subject("untracked", "bare"),
      subject("tracked from the WAL", "wal"),
      subject("tracked by triggers", "by_trigger"),
    ], { rounds: 5, unit: "transactions/s" });
  } finally {
    rmSync(folder, { recursive: true });
  }
}
