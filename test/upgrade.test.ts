import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { install, SCHEMA_VERSION, trackAll } from "../src/install/mod.ts";
import { onEachServer, type TestDatabase } from "./support/databases.ts";
import { fingerprint } from "./support/fingerprint.ts";
import { story } from "./support/todos.ts";

const bin = fileURLToPath(new URL("../dist/src/cli/bin.js", import.meta.url));

function bemi(args: readonly string[], url = ""): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [bin, ...args], {
    encoding: "utf8",
    env: { PATH: process.env.PATH ?? "", DATABASE_URL: url },
  });
}

/** The installation as a library of an earlier version made it. */
function upTo(version: number): string {
  const { stdout: sql } = bemi(["generate", "sql"]);
  const next = sql.indexOf(`insert into "bemi".migrations (version, name) values (${version + 1},`);
  const end = sql.indexOf("do $$\ndeclare\n  v_object record;\n  v_this xid");
  expect([next > 0, end > next]).toEqual([true, true]);
  return sql.slice(0, next) + sql.slice(end);
}

const stable = async ({ port }: TestDatabase): Promise<string[]> =>
  (await fingerprint(port)).map((line) => line.replace(/bemi_reconcile_\d+/, "bemi_reconcile"));

onEachServer("an installation of an earlier version", (open) => {
  test("comes to be what a new one is, by bemi migrate and by generate sql --from alike", async () => {
    await using fresh = await open();
    await install(fresh.db);
    const expected = await stable(fresh);
    for (let version = 1; version < SCHEMA_VERSION; version++) {
      for (const way of ["migrate", "generate"]) {
        await using database = await open();
        // As a migration tool runs it: on one connection, in one string.
        await database.connect({ max: 1 }).unsafe(upTo(version));
        const args = way === "migrate" ? ["migrate"] : ["generate", "sql", "--from", String(version)];
        const { status, stdout, stderr } = bemi(args, database.url);
        expect([status, stderr]).toEqual([0, expect.not.stringMatching(/^bemi: /m)]);
        if (way === "generate") await database.connect({ max: 1 }).unsafe(stdout);
        expect(await stable(database), `${way} from ${version}`).toEqual(expected);
        await database.port.execute("create table todos (id int primary key)");
        await trackAll(database.db);
        await database.port.execute("insert into todos values (1)");
        expect(await story(database.port)).toEqual(["CREATE todos 1"]);
      }
    }
  }, 180_000);
});
