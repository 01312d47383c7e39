import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { connectionTarget, otherTarget } from "../src/cli/connection.ts";

const folder = mkdtempSync(join(tmpdir(), "bemi-passfile-"));
const file = join(folder, ".pgpass");
writeFileSync(
  file,
  `# comment
db.example.com:5433:app:bemi:of one
db.example.com:*:*:bemi:p@ss\\:word
[::1]:5432:app:bemi:six
localhost:*:app:odd\\:name:local
*:*:elsewhere:bemi:any
`,
  { mode: 0o600 },
);
afterAll(() => rmSync(folder, { recursive: true }));

const env = { PGPASSFILE: file };

test.each([
  ["postgres://bemi@db.example.com:5433/app", "postgres://bemi:of%20one@db.example.com:5433/app"],
  ["postgres://bemi@db.example.com/app", "postgres://bemi:p%40ss%3Aword@db.example.com/app"],
  ["postgres://bemi:@db.example.com/app", "postgres://bemi:p%40ss%3Aword@db.example.com/app"],
  ["postgres://bemi:own@db.example.com/app", "postgres://bemi:own@db.example.com/app"],
  [
    "postgres://odd%3Aname@localhost/app?sslmode=disable",
    "postgres://odd%3Aname:local@localhost/app?sslmode=disable",
  ],
  ["postgres://bemi@a:1,b:2/elsewhere", "postgres://bemi:any@a:1,b:2/elsewhere"],
  ["postgres://other@db.example.com/app", "postgres://other@db.example.com/app"],
])("the password file's first line that fits: %s", (url, target) => {
  expect(connectionTarget(url, env)).toBe(target);
  expect(otherTarget(url, env)).toBe(target);
});

test("variables of libpq's and of Bemi's are looked up like a URL, a password of theirs goes first", () => {
  const pg = { PGHOST: "db.example.com", PGUSER: "bemi", PGDATABASE: "app", HOME: folder };
  expect(connectionTarget(undefined, pg)).toEqual({ password: "p@ss:word" });
  expect(connectionTarget(undefined, { ...pg, PGPASSWORD: "own" })).toEqual({});
  const db = { DB_HOST: "db.example.com", DB_PORT: "5433", DB_USER: "bemi", DB_NAME: "app", ...env };
  expect(connectionTarget(undefined, db)).toMatchObject({ password: "of one" });
  expect(connectionTarget(undefined, { ...db, DB_PASSWORD: "own" })).toMatchObject({ password: "own" });
});

test.skipIf(process.platform === "win32")("a file that others can read is left alone", () => {
  chmodSync(file, 0o644);
  const url = "postgres://bemi@db.example.com/app";
  expect(connectionTarget(url, env)).toBe(url);
  expect(connectionTarget(url, { PGPASSFILE: join(folder, "none") })).toBe(url);
  chmodSync(file, 0o600);
});
