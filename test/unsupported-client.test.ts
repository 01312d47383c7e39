import { PGlite } from "@electric-sql/pglite";
import { neon } from "@neondatabase/serverless";
import { drizzle } from "drizzle-orm/node-postgres";
import { Kysely, PostgresDialect } from "kysely";
import pg from "pg";
import postgres from "postgres";
import { expect, test } from "vitest";
import { withBemi as forBun } from "../src/adapters/bun-sql.ts";
import { withBemi as forAny } from "../src/adapters/comment.ts";
import { withBemi as forDrizzle } from "../src/adapters/drizzle.ts";
import { withBemi as forKysely } from "../src/adapters/kysely.ts";
import { withBemi as forNeon } from "../src/adapters/neon.ts";
import { withBemi as forPg } from "../src/adapters/pg.ts";
import { withBemi as forPglite } from "../src/adapters/pglite.ts";
import { withBemi as forPostgres } from "../src/adapters/postgres.ts";
import { BemiError } from "../src/errors.ts";

type WithBemi = (client: unknown) => unknown;

const ADAPTERS = {
  postgres: forPostgres as unknown as WithBemi,
  pg: forPg as unknown as WithBemi,
  bun: forBun as unknown as WithBemi,
  pglite: forPglite as unknown as WithBemi,
  neon: forNeon as unknown as WithBemi,
  drizzle: forDrizzle as unknown as WithBemi,
  kysely: forKysely as unknown as WithBemi,
};

function refused(withBemi: WithBemi, client: unknown): BemiError {
  try {
    withBemi(client);
  } catch (error) {
    if (error instanceof BemiError) return error;
    throw error;
  }
  throw new Error("It was not refused");
}

// Nothing here connects.
const URL = "postgres://localhost/app";
const pool = new pg.Pool();
const CLIENTS = {
  postgres: postgres(URL),
  pg: pool,
  pglite: Object.create(PGlite.prototype) as PGlite,
  neon: neon("postgres://user:secret@host.neon.tech/app"),
  drizzle: drizzle({ client: pool }),
  kysely: new Kysely({ dialect: new PostgresDialect({ pool }) }),
};

test.each(
  Object.keys(ADAPTERS).flatMap((subpath) =>
    Object.keys(CLIENTS).filter((client) => client !== subpath).map((client) => [subpath, client])
  ).filter(([subpath, client]) => !(subpath === "neon" && client === "pg")),
)("@bemi/core/%s names the subpath that a client of %s is for", (subpath = "", client = "") => {
  const error = refused(
    ADAPTERS[subpath as keyof typeof ADAPTERS],
    CLIENTS[client as keyof typeof CLIENTS],
  );
  expect(error.code).toBe("unsupported_client");
  expect(error.message).toContain(`withBemi of @bemi/core/${subpath} takes `);
  expect(error.hint).toContain(`@bemi/core/${client}.`);
});

test.each(Object.entries(ADAPTERS))(
  "@bemi/core/%s refuses what is no client, with the remedy",
  (_, withBemi) => {
    for (const nothing of [undefined, null, 7, URL, {}, () => {}]) {
      expect(refused(withBemi, nothing).hint).toMatch(/^Pass /);
    }
    expect(refused(withBemi, Promise.resolve(pool)).hint).toMatch(/await it/);
  },
);

test("the maker of a client is not the client", () => {
  expect(refused(ADAPTERS.postgres, postgres).hint).toBe("Pass what postgres(…) returns.");
  expect(refused(ADAPTERS.pg, pg.Pool).hint).toMatch(/^Pass what new pg.Pool/);
  expect(refused(ADAPTERS.pglite, PGlite).hint).toMatch(/^Pass what `await PGlite.create/);
  expect(refused(ADAPTERS.pg, { query() {}, connect() {}, native: {} }).hint).toMatch(/native bindings/);
});

test("kysely over a client that has an adapter takes that one, wrapped", () => {
  expect(refused(ADAPTERS.pg, CLIENTS.kysely).hint).toMatch(/PostgresDialect\(\{ pool: withBemi\(pool\)/);
});

test("@bemi/core/comment wants the methods that are named", () => {
  expect(() => forAny({ run: () => {} }, { methods: ["execute"] })).toThrow(
    /a client with the method "execute"/,
  );
  expect(refused(forAny as WithBemi, undefined).hint).toMatch(/methods/);
  expect(refused(forAny as WithBemi, Promise.resolve(pool)).hint).toMatch(/await it/);
});

test("a client is wrapped once, also by another adapter", () => {
  const wrapped = forPg(pool);
  for (const again of [forPg(wrapped), forNeon(wrapped), forAny(wrapped, { methods: ["query"] })]) {
    expect(again).toBe(wrapped);
  }
  const sql = forNeon(CLIENTS.neon);
  expect(forNeon(sql)).toBe(sql);
  const db = forPglite(CLIENTS.pglite);
  expect(forPglite(db)).toBe(db);
  const kysely = forKysely(CLIENTS.kysely);
  expect(forKysely(kysely)).toBe(kysely);
});
