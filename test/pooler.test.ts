import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import postgres from "postgres";
import { expect, test } from "vitest";
import { withContext } from "../mod.ts";
import { withBemi } from "../src/adapters/postgres.ts";
import { createSlot, install, runWorker, track } from "./support/installation.ts";
import { onEachServer } from "./support/databases.ts";
import { freePort, unprivileged } from "./support/servers.ts";
import { seen } from "./support/todos.ts";

const path = `${process.env.PATH}:/usr/sbin`;
const isThere = spawnSync("pgbouncer", ["--version"], { env: { PATH: path } }).status === 0;
if (!isThere) {
  console.warn("PgBouncer is not installed: the tests behind it are skipped (Debian's package: pgbouncer)");
}

/** PgBouncer in transaction mode, in front of one database. */
async function pooler(url: string): Promise<AsyncDisposable & { url: string }> {
  const { hostname, port, pathname } = new URL(url);
  const folder = mkdtempSync(join(tmpdir(), "bemi-pgbouncer-"));
  chmodSync(folder, 0o755);
  const own = await freePort();
  writeFileSync(
    join(folder, "pgbouncer.ini"),
    `[databases]
app = host=${hostname} port=${port} dbname=${pathname.slice(1)} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${own}
auth_type = any
pool_mode = transaction
default_pool_size = 3
unix_socket_dir =
`,
  );
  const child: ChildProcess = spawn("pgbouncer", [join(folder, "pgbouncer.ini")], {
    ...unprivileged(),
    env: { PATH: path },
    stdio: ["ignore", "ignore", "pipe"],
  });
  await new Promise<void>((done, fail) => {
    let log = "";
    child.once("exit", () => fail(new Error(`PgBouncer did not start: ${log}`)));
    child.stderr?.on("data", (chunk) => {
      log += String(chunk);
      if (/process up/.test(log)) done();
    });
  });
  return {
    url: `postgres://postgres@127.0.0.1:${own}/app`,
    [Symbol.asyncDispose]: async () => {
      const gone = new Promise((done) => child.once("exit", done));
      child.kill("SIGKILL");
      await gone;
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

onEachServer("behind PgBouncer in transaction mode", (open) => {
  test.skipIf(!isThere)("contexts stay with their requests, and the worker polls", async () => {
    await using database = await open();
    await install(database.db);
    await createSlot(database.db);
    await database.port.execute("create table todos (id int primary key, task text)");
    await track(database.db, "todos", { capture: "wal" });
    await using pool = await pooler(database.url);
    const raw = postgres(pool.url, { max: 10, prepare: false, onnotice() {} });
    const sql = withBemi(raw);
    await Promise.all(Array.from({ length: 60 }, (_, user_id) =>
      withContext({ user_id }, async () => {
        if (user_id % 2) return await sql`insert into todos values (${user_id}, 'alone')`;
        return await sql.begin(async (tx) => {
          await tx`insert into todos values (${user_id}, 'in a transaction')`;
          await tx`select pg_sleep(0.005)`;
        });
      })));
    await sql`insert into todos values (1000, 'outside')`;
    await raw.end();
    await runWorker({ source: pool.url, once: true }).finished;
    const changes = await seen(database.port);
    expect(changes).toHaveLength(61);
    for (const { key, context } of changes) {
      expect(context.user_id ?? 1000).toBe(Number(key));
    }
  });
});
