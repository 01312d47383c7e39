import { spawnSync } from "node:child_process";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { planRevert } from "../src/history/mod.ts";
import { install, track } from "../src/install/mod.ts";
import { onEachServer, type TestDatabase } from "./support/databases.ts";
import { TODOS } from "./support/todos.ts";

const root = fileURLToPath(new URL("../", import.meta.url));

function bemi(
  args: readonly string[],
  { url = "" }: TestDatabase,
): { status: number | null; stdout: string; stderr: string } {
  const env = { PATH: process.env.PATH ?? "", DATABASE_URL: url };
  return spawnSync(process.execPath, ["dist/src/cli/bin.js", "revert", ...args], {
    cwd: root,
    encoding: "utf8",
    env,
  });
}

onEachServer("bemi revert", (open) => {
  test("shows the plan, does nothing without --yes, and reverts with it", async () => {
    await using database = await open();
    const { port, db } = database;
    await install(db);
    await port.execute(TODOS);
    await track(db, "todos");
    await port.execute("insert into todos (task) values ('Sleep'), ('Eat')");
    await port.transaction((tx) =>
      tx.execute(`select set_config('bemi.context', '{"request": 7}', true);
        update todos set task = 'x' where id = 1; delete from todos where id = 2; insert into todos (task) values ('Rest')`)
    );
    const tasks = async (): Promise<string[]> =>
      (await port.query<{ task: string }>("select task from todos order by id")).map(({ task }) => task);
    const unit = ["--context", '{"request": 7}'];

    const shown = bemi(unit, database);
    expect(shown).toMatchObject({ status: 0, stderr: "This takes back 3 changes. To do it, add --yes.\n" });
    expect(shown.stdout).toBe(
      'UPDATE public.todos 1\n  task = "Sleep"\nINSERT public.todos 2\n' +
        '  id = 2\n  task = "Eat"\n  list_id = null\n  is_completed = false\nDELETE public.todos 3\n',
    );
    expect(await tasks()).toEqual(["x", "Rest"]);
    const lines = bemi([...unit, "--json"], database).stdout.trimEnd().split("\n").map((line) =>
      JSON.parse(line) as object
    );
    expect(lines[0]).toEqual({
      operation: "UPDATE",
      schema: "public",
      table: "todos",
      key: "1",
      columns: { task: "Sleep" },
    });

    const script = bemi([...unit, "--sql"], database);
    expect(script.status).toBe(0);
    expect(await tasks()).toEqual(["x", "Rest"]);
    const session = database.connect({ max: 1 });
    await session.unsafe(script.stdout.replace(/commit;\n$/, "select count(*) from todos; rollback"));

    expect(bemi([...unit, "--yes"], database)).toMatchObject({ status: 0, stderr: "Reverted 3 changes\n" });
    expect(await tasks()).toEqual(["Sleep", "Eat"]);
    expect(bemi(["todos", "1", "--to", "2999-01-01", "--yes"], database)).toMatchObject({
      status: 0,
      stderr: "Nothing to revert\n",
    });
  });

  test("takes the numbers of a context as they are written", async () => {
    await using database = await open();
    const { port, db } = database;
    await install(db);
    await port.execute(TODOS);
    await track(db, "todos");
    for (const user of ["9007199254740992", "9007199254740993"]) {
      await port.transaction((tx) =>
        tx.execute(`select set_config('bemi.context', '{"user_id": ${user}}', true);
          insert into todos (task) values ('of ${user}')`)
      );
    }
    expect(bemi(["--context", '{"user_id": 9007199254740993}', "--yes"], database)).toMatchObject({
      status: 0,
      stderr: "Reverted 1 change\n",
    });
    expect(await port.query("select task from todos")).toEqual([{ task: "of 9007199254740992" }]);
    const [own] = await port.query<{ reverts: object }>(
      "select context -> 'reverts' as reverts from changes where operation = 'DELETE'",
    );
    expect(own?.reverts).toEqual({ context: { user_id: "9007199254740993" } });
    for (const context of ["{", "[1]", '"x"', " {} "]) {
      await expect(planRevert(db, { context })).rejects.toMatchObject({ code: "usage" });
    }
  });

  test("exits with 1 on a conflict, whose remedy it names, and with 2 where it is not said what to revert", async () => {
    await using database = await open();
    const { port, db } = database;
    await install(db);
    await port.execute(TODOS);
    await track(db, "todos");
    await port.execute("insert into todos (task) values ('Sleep')");
    await port.execute("update todos set task = 'x'");
    const [row] = await port.query<{ id: string }>("select id from changes where operation = 'UPDATE'");
    await port.execute("update todos set task = 'y'");
    const unit = ["--change", row?.id ?? ""];
    for (const args of [unit, [...unit, "--yes"]]) {
      expect(bemi(args, database)).toMatchObject({
        status: 1,
        stdout: expect.stringMatching(
          /^CONFLICT row_changed public\.todos 1 \(task\)\n {2}a row of public\.todos was changed since\n/,
        ),
        stderr: expect.stringContaining("--on-conflict skip or force"),
      });
    }
    expect(JSON.parse(bemi([...unit, "--json"], database).stdout)).toMatchObject({
      conflict: { kind: "row_changed" },
    });
    // What is printed here may go to psql.
    expect(bemi([...unit, "--sql"], database)).toMatchObject({
      status: 1,
      stdout: "",
      stderr: expect.stringMatching(/^CONFLICT row_changed public\.todos 1 \(task\)\n/),
    });
    expect(bemi([...unit, "--on-conflict", "force", "--yes"], database).status).toBe(0);
    expect(await port.query("select task from todos")).toEqual([{ task: "Sleep" }]);
    for (
      const args of [[], ["todos"], ["--to", "2026-01-01"], [...unit, "--context", "{}"], ["--change", "1"], [
        "--context",
        "{}",
      ], ["--transaction", "x"]]
    ) {
      expect(bemi(args, database), args.join(" ")).toMatchObject({ status: 2, stdout: "" });
    }
    expect(bemi(["--transaction", "4"], database)).toMatchObject({
      status: 1,
      stdout: "",
      stderr: expect.stringContaining("no such transaction"),
    });
  });
});
