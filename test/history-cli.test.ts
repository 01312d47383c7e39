import { expect, test } from "vitest";
import { changeText } from "../src/cli/change-text.ts";
import type { Io } from "../src/cli/io.ts";
import { main } from "../src/cli/main.ts";
import { psqlTable } from "../src/cli/psql-table.ts";
import { onEachServer } from "./support/databases.ts";
import { install, SCHEMA, track } from "./support/installation.ts";

interface Ran {
  readonly status: number;
  readonly out: string;
  readonly err: string;
}

async function run(args: readonly string[], isColoured = false): Promise<Ran> {
  let [out, err] = ["", ""];
  const io: Io = {
    env: {},
    out: (text) => {
      out += text;
    },
    err: (text) => {
      err += text;
    },
    columns: undefined,
    isColoured,
    progress: undefined,
    onTerminate: () => {},
  };
  const status = await main(args, io);
  return { status, out, err };
}

test("a table may have any number of rows", () => {
  const rows = Array.from({ length: 200_000 }, () => ["x"]);
  expect(psqlTable(["a"], rows).endsWith(" x\n(200000 rows)\n")).toBe(true);
});

test("what would steer a terminal is spelled", () => {
  expect(psqlTable(["a"], [["\u001b[2J\ttwo\nlines"]])).toContain(" \\x1B[2J\ttwo↵lines\n");
  const change = {
    schema: "public",
    table: "todos",
    operation: "CREATE",
    primary_key: "\u001b]0;x\u0007",
    former_primary_key: null,
    before: {},
    after: { task: "\u009b2J" },
    context: {},
    committed_at: "2026-11-01T00:00:00.000000Z",
  };
  expect(changeText(JSON.stringify(change), { isColoured: false } as Io)).toBe(
    '2026-11-01 00:00:00.000000+00  CREATE todos \\x1B]0;x\\x07\n  + task: "\\x9B2J"\n',
  );
});

onEachServer("the past on the command line", (open) => {
  test("history shows what each change made different; as-of the rows; --group-by counts; numbers are exact", async () => {
    await using database = await open();
    const { db, port } = database;
    await install(db);
    await port.execute("create table sums (id int primary key, v numeric, note text)");
    await track(db, "sums");
    const at = ["--database-url", database.url, "--schema", SCHEMA];
    await port.transaction(async (tx) => {
      await tx.query(`select set_config('bemi.context', '{"user_id": 7}', true)`);
      await tx.execute("insert into sums values (1, 12345678901234567890.10, 'a \"b\"')");
    });
    const [then] = await port.query<{ t: string }>(
      "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00' as t",
    );
    await port.execute("update sums set id = 2, v = 0.50");

    const plain = await run(["history", "sums", "2", ...at]);
    expect(plain.err).toBe("");
    const [created, updated] = plain.out.split("\n\n");
    expect(created).toMatch(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}\+00 {2}CREATE sums 1 {2}{"user_id":7}\n/);
    expect(created?.split("\n").slice(1).sort()).toEqual([
      "  + id: 1",
      '  + note: "a \\"b\\""',
      "  + v: 12345678901234567890.10",
    ]);
    expect(updated).toContain("UPDATE sums 1 -> 2\n");
    expect(updated).toContain("  - v: 12345678901234567890.10\n  + v: 0.50\n");
    expect((await run(["history", "sums", "2", ...at], true)).out).toContain(
      "\u001b[31m  - v: 12345678901234567890.10",
    );
    const lines = (await run(["history", "sums", "2", "--json", ...at])).out.trimEnd().split("\n");
    expect(lines).toHaveLength(2);
    expect(lines[0]).toContain('"v": 12345678901234567890.10');
    expect(await run(["history", "sums", "9", ...at])).toMatchObject({
      status: 0,
      out: "",
      err: expect.stringContaining("no change"),
    });

    const rows = await run(["as-of", "sums", then?.t ?? "", ...at]);
    expect(rows.out).toMatch(
      / id +\| +v +\| +note *\n[-+]+\n 1 +\| 12345678901234567890.10 \| a "b"\n\(1 row\)\n$/,
    );
    expect((await run(["as-of", "sums", then?.t ?? "", "--key", "1", "--json", ...at])).out).toContain(
      '"v":12345678901234567890.10',
    );
    expect((await run(["as-of", "sums", then?.t ?? "", "--key", "2", "--json", ...at])).out).toBe("");
    expect((await run(["as-of", "sums", then?.t ?? "", "--key", "2", ...at])).out).toBe("(0 rows)\n");
    expect((await run(["changes", "sums", ...at])).out).toMatch(
      /\| {}[^\n]*"v": 12345678901234567890\.10.*\n[^\n]*"v": 12345678901234567890\.10[^\n]*"v": 0\.50/,
    );
    expect(await run(["as-of", "sums", "2020-01-01", ...at])).toMatchObject({
      status: 1,
      err: expect.stringContaining("They are known from"),
    });
    for (
      const [args, said] of [
        [["as-of", "nowhere", "2020-01-01"], "no table nowhere"],
        [["as-of", "sums", "2999-01-01"], "is yet to come"],
        [["history", "sum", "2"], "Did you mean sums?"],
        [["changes", "sum", "--group-by", "day"], "Did you mean sums?"],
        [["as-of", "sums", "2026-11-03 25:00"], "no time that PostgreSQL knows"],
        [["changes", "--group-by", "day", "--since", "2026-11-03 25:00"], "no time that PostgreSQL knows"],
        [["revert", "sum", "--to", "2026-11-03"], "The log knows no table sum"],
        [["revert", "sums", "--to", "2026-11-03 25:00"], "no time that PostgreSQL knows"],
      ] as const
    ) {
      expect(await run([...args, ...at]), args.join(" ")).toMatchObject({
        status: 2,
        out: "",
        err: expect.stringContaining(said),
      });
    }

    const groups = await run(["changes", "--group-by", "user_id", ...at]);
    expect(groups.out).toMatch(/\n 7 +\| 1 /);
    const [day] = (await run(["changes", "sums", "--group-by", "day", "--json", ...at])).out.trimEnd().split(
      "\n",
    );
    expect(JSON.parse(day ?? "")).toMatchObject({
      changes: 2,
      operations: { CREATE: 1, UPDATE: 1 },
      tables: ["sums"],
    });
    expect((await run(["changes", "--group-by", "user", "--json", ...at])).out).toContain('"key":"postgres"');

    await port.execute(
      "alter table sums drop column note; alter table sums add column kind text default 'sum'",
    );
    expect(await run(["as-of", "sums", then?.t ?? "", "--json", ...at])).toEqual({
      status: 0,
      out: '{"id":1,"v":12345678901234567890.10,"kind":"sum"}\n',
      err: "bemi: columns of public.sums since: note was dropped, kind was added\n",
    });

    // A transaction by the name that a group has.
    const [latest] = (await run(["changes", "--group-by", "transaction", "--json", ...at])).out.split("\n");
    const { key } = JSON.parse(latest ?? "") as { key: string };
    expect(key).toMatch(/^\d+\/\d+$/);
    const found = (await run(["changes", "--transaction", key, "--json", ...at])).out.trimEnd().split("\n");
    expect(found.map((line) => (JSON.parse(line) as { operation: string }).operation)).toEqual(["UPDATE"]);
    expect((await run(["revert", "--transaction", key, "--json", ...at])).out).toContain(
      '"columns":{"v": 12345678901234567890.10, "id": 1}',
    );

    // Of another schema than the usual one, a table is named with it.
    await port.execute("create schema app; create table app.sums (id int primary key)");
    await track(db, "app.sums");
    await port.execute("insert into app.sums values (1)");
    expect((await run(["history", "app.sums", "1", ...at])).out).toContain("CREATE app.sums 1\n");
    expect((await run(["changes", "app.sums", ...at])).out).toMatch(/\n 1 +\| app\.sums \| CREATE /);
  });
});
