import { PGlite } from "@electric-sql/pglite";
import { existsSync } from "node:fs";
import { readFile, rename, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import postgres from "postgres";
import { describe, inject } from "vitest";
import { connect } from "../../src/database/connect.ts";
import type { Database } from "../../src/database/port.ts";

/** A fresh database on one of the servers, or in PGlite. */
export interface TestDatabase extends AsyncDisposable {
  /** `PGlite`, or the major version of a real server. */
  readonly server: string;
  /** The client as an application has it. */
  readonly db: PGlite | postgres.Sql;
  readonly port: Database;
  /** Absent for PGlite. */
  readonly url: string | undefined;
  /** Further connections, closed with the database. */
  connect(options?: postgres.Options<Record<string, postgres.PostgresType>>): postgres.Sql;
}

export interface DatabaseOptions {
  readonly encoding?: "UTF8" | "LATIN1" | "WIN1252" | "SQL_ASCII";
}

type Open<T> = (options?: DatabaseOptions) => Promise<T>;

/** Runs a group of tests on PGlite and on each real server. */
export function onEachDatabase(
  name: string,
  tests: (open: Open<TestDatabase>, server: string) => void,
): void {
  describe.each([["PGlite"], ...inject("servers").map((server) => [server.version])])(
    `${name} on %s`,
    (server) => tests(server === "PGlite" ? openPglite : (options) => openOn(server, options), server),
  );
}

/** Runs a group of tests on each real server. */
export function onEachServer(
  name: string,
  tests: (open: Open<TestDatabase & { url: string; db: postgres.Sql }>, server: string) => void,
): void {
  describe.each(inject("servers").map((server) => [server.version]))(
    `${name} on PostgreSQL %s`,
    (server) => tests((options) => openOn(server, options), server),
  );
}

/** Runs a group of tests on PGlite alone. */
export function onPglite(name: string, tests: (open: Open<TestDatabase & { db: PGlite }>) => void): void {
  describe(name, () => tests(openPglite));
}

let counter = 0;

/** A fresh database on the real server of a major version that this run has. */
export async function openOn(
  version: string,
  options: DatabaseOptions = {},
): Promise<TestDatabase & { url: string; db: postgres.Sql }> {
  const server = inject("servers").find((candidate) => candidate.version === version);
  if (!server) throw new Error(`No server ${version} in this run`);
  return await openIn(server, options);
}

/** A fresh database on a server; `url` ends where the database's name begins. */
export async function openIn(
  server: { readonly version: string; readonly url: string },
  options: DatabaseOptions = {},
): Promise<TestDatabase & { url: string; db: postgres.Sql }> {
  const name = `test_${process.pid}_${++counter}`;
  const admin = postgres(`${server.url}postgres`, { max: 1, onnotice() {} });
  await admin.unsafe(
    `create database ${name} encoding '${options.encoding ?? "UTF8"}' locale 'C' template template0`,
  );
  const url = server.url + name;
  const clients: postgres.Sql[] = [];
  const open = (more: object = {}): postgres.Sql => {
    const client = postgres(url, { max: 4, onnotice() {}, ...more });
    clients.push(client);
    return client;
  };
  const db = open();
  return {
    server: server.version,
    db,
    port: connect(db),
    url,
    connect: open,
    [Symbol.asyncDispose]: async () => {
      await Promise.all(clients.map((client) => client.end({ timeout: 1 })));
      // pg's pools end before their connections do, and one that is killed then is an error that nobody can catch.
      for (let looks = 0; looks < 20; looks++) {
        const [row] = await admin`select from pg_stat_activity where datname = ${name} limit 1`;
        if (!row) break;
        await new Promise((done) => setTimeout(done, 10));
      }
      await admin.unsafe(`drop database if exists ${name} with (force)`);
      await admin.end({ timeout: 1 });
    },
  };
}

async function openPglite(): Promise<TestDatabase & { db: PGlite }> {
  const db = await PGlite.create({ loadDataDir: await freshDataDir() });
  return {
    server: "PGlite",
    db,
    port: connect(db),
    url: undefined,
    connect: () => {
      throw new Error("PGlite has one session");
    },
    [Symbol.asyncDispose]: () => db.close(),
  };
}

let dataDir: Promise<Blob> | undefined;

// initdb takes seconds in WebAssembly; its result is kept between runs.
function freshDataDir(): Promise<Blob> {
  dataDir ??= (async () => {
    const manifest = new URL("../../node_modules/@electric-sql/pglite/package.json", import.meta.url);
    const { version } = JSON.parse(await readFile(manifest, "utf8")) as { version: string };
    const file = join(tmpdir(), `bemi-test-pglite-${version}.tar`);
    if (!existsSync(file)) {
      const db = await PGlite.create();
      const dump = await db.dumpDataDir("none");
      await db.close();
      const partial = `${file}.${process.pid}`;
      await writeFile(partial, new Uint8Array(await dump.arrayBuffer()));
      await rename(partial, file);
    }
    return new Blob([await readFile(file)]);
  })();
  return dataDir;
}
