import { spawnSync } from "node:child_process";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { fileURLToPath } from "node:url";
import postgres from "postgres";
import { afterAll, beforeAll, describe, expect, inject, test, vi } from "vitest";
import { connect } from "../src/database/connect.ts";
import { openConnection } from "../src/worker/connection.ts";
import type { WorkerEvent } from "../src/worker/mod.ts";
import { type Certificates, certificates } from "./support/certificates.ts";
import { createSlot, install, runWorker, SCHEMA, track } from "./support/installation.ts";
import { PROCESS_RUNTIMES, start } from "./support/runtimes.ts";
import { type Server, startServer } from "./support/servers.ts";
import { seen, TODOS } from "./support/todos.ts";

const root = fileURLToPath(new URL("../", import.meta.url));
const bin = `${root}dist/src/cli/bin.js`;
const poll = `${root}dist/src/cli/bin-poll.js`;

const bemi = (args: readonly string[], env: Record<string, string> = {}) =>
  spawnSync(process.execPath, [bin, ...args], {
    encoding: "utf8",
    env: { PATH: process.env.PATH ?? "", ...env },
  });

describe.each(inject("servers").map(({ version }) => [version]))("TLS with PostgreSQL %s", (version) => {
  let files: Certificates;
  let server: Server;
  let plain: Server;

  beforeAll(async () => {
    files = await certificates();
    // Who comes as "guarded" has to come encrypted.
    const hba = files.write(
      "pg_hba.conf",
      "hostssl all guarded 127.0.0.1/32 trust\nhost all guarded 127.0.0.1/32 reject\n" +
        "host all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n",
    );
    server = await startServer(version, [
      "fsync=off",
      "ssl=on",
      `ssl_cert_file=${files.server.cert}`,
      `ssl_key_file=${files.server.key}`,
      `ssl_ca_file=${files.ca}`,
      `hba_file=${hba}`,
    ]);
    plain = await startServer(version);
    const sql = postgres(server.url(), { max: 1, onnotice() {} });
    await install(sql);
    await createSlot(sql);
    await sql.unsafe(`${TODOS} create role guarded superuser login`);
    await track(sql, "todos", { capture: "wal" });
    await sql.end();
  });

  afterAll(async () => {
    await server?.remove();
    await plain?.remove();
    files?.[Symbol.dispose]();
  });

  /** The server's URL with parameters; by its name, which is the certificate's, or by its address, which is not. */
  const url = (parameters: Record<string, string>, host = "localhost"): string => {
    const made = new URL(server.url());
    made.hostname = host;
    for (const [name, value] of Object.entries(parameters)) made.searchParams.set(name, value);
    return made.href;
  };

  /** Whether a connection is encrypted, and whose certificate it showed. */
  async function look(target: string | object): Promise<{ ssl: boolean; client_dn: string | null }> {
    const sql = await openConnection(target);
    try {
      const [row] = await sql.unsafe("select ssl, client_dn from pg_stat_ssl where pid = pg_backend_pid()");
      return row as { ssl: boolean; client_dn: string | null };
    } finally {
      await sql.end({ timeout: 1 });
    }
  }

  test("a connection is encrypted as sslmode says, and as libpq where it says nothing", async () => {
    for (const host of ["localhost", "127.0.0.1"]) {
      expect(await look(url({}, host))).toMatchObject({ ssl: true });
      for (const sslmode of ["allow", "prefer", "require"]) {
        expect([sslmode, await look(url({ sslmode }, host))]).toMatchObject([sslmode, { ssl: true }]);
      }
      expect(await look(url({ sslmode: "disable" }, host))).toMatchObject({ ssl: false });
      expect(await look(url({ sslmode: "verify-ca", sslrootcert: files.ca }, host))).toMatchObject({
        ssl: true,
      });
    }
    expect(await look(url({ sslmode: "verify-full", sslrootcert: files.ca }))).toMatchObject({ ssl: true });
    if (Number(version) >= 17) {
      expect(await look(url({ sslmode: "verify-full", sslrootcert: files.ca, sslnegotiation: "direct" })))
        .toMatchObject({ ssl: true });
    }
    expect(await look(plain.url())).toMatchObject({ ssl: false });
    expect(await look(`${plain.url()}?sslmode=prefer`)).toMatchObject({ ssl: false });
  });

  test("options instead of a URL take libpq's words, and those of postgres.js", async () => {
    const { hostname: host, port, username } = new URL(url({}));
    const options = { host, port: Number(port), username, database: "postgres" };
    expect(await look({ ...options, sslmode: "verify-full", sslrootcert: files.ca })).toMatchObject({
      ssl: true,
    });
    expect(await look({ ...options, ssl: "require" })).toMatchObject({ ssl: true });
    expect(await look({ ...options, ssl: { rejectUnauthorized: false } })).toMatchObject({ ssl: true });
    expect(await look({ ...options, ssl: false })).toMatchObject({ ssl: false });
    await expect(look({ ...options, ssl: {} })).rejects.toMatchObject({ code: "connection_failed" });
  });

  test("a server that is not the one to be trusted gets nothing, and the error names the remedy", async () => {
    const refusal = (parameters: Record<string, string>, host?: string): Promise<unknown> =>
      look(url(parameters, host)).catch((error: unknown) => error);
    const authority = { code: "connection_failed", hint: expect.stringMatching(/sslrootcert/) };
    expect(await refusal({ sslmode: "verify-full" })).toMatchObject(authority);
    expect(await refusal({ sslmode: "verify-ca" })).toMatchObject(authority);
    expect(await refusal({ sslrootcert: "system" })).toMatchObject(authority);
    expect(await refusal({ sslmode: "verify-full", sslrootcert: files.otherCa })).toMatchObject(authority);
    // Who names the authorities wants them asked, as with libpq.
    expect(await refusal({ sslmode: "require", sslrootcert: files.otherCa })).toMatchObject(authority);
    expect(await refusal({ sslmode: "verify-full", sslrootcert: files.ca }, "127.0.0.1")).toMatchObject({
      code: "connection_failed",
      message: expect.stringMatching(/another host/),
      hint: expect.stringMatching(/verify-ca/),
    });
    for (const sslmode of ["require", "verify-ca", "verify-full"]) {
      await expect(look(`${plain.url()}?sslmode=${sslmode}`)).rejects.toMatchObject({
        code: "connection_failed",
        message: `The server offers no TLS, and sslmode is "${sslmode}"`,
        hint: expect.stringMatching(/Turn ssl on/),
      });
    }
  });

  test("what cannot be meant is refused before anything is connected to", async () => {
    const usage = { code: "usage", hint: expect.any(String) };
    await expect(look(url({ sslmode: "verify" }))).rejects.toMatchObject(usage);
    await expect(look(url({ sslmode: "require", sslrootcert: "system" }))).rejects.toMatchObject(usage);
    await expect(look(url({ sslnegotiation: "direct" }))).rejects.toMatchObject(usage);
    await expect(look(url({ sslmode: "verify-full", sslrootcert: `${files.ca}.gone` }))).rejects
      .toMatchObject({
        ...usage,
        message: expect.stringContaining("sslrootcert"),
      });
  });

  test("a server that goes as soon as it has agreed to TLS is gone, and what fails keeps no connection", async () => {
    const open = new Set<Socket>();
    let answer = (socket: Socket): void => void socket.write("S", () => socket.resetAndDestroy());
    const fake = createServer((socket) => {
      open.add(socket);
      socket.on("error", () => {}).on("close", () => open.delete(socket)).once("data", () => answer(socket));
    });
    await new Promise<void>((done) => fake.listen(0, "127.0.0.1", done));
    const { port } = fake.address() as AddressInfo;
    const target = (rootCert: string): string =>
      `postgres://postgres@127.0.0.1:${port}/postgres?sslmode=verify-ca&sslrootcert=${rootCert}`;
    for (let i = 0; i < 3; i++) {
      await expect(look(target(files.ca))).rejects.toMatchObject({
        code: expect.stringMatching(/^(?:E|CONN)/),
      });
    }
    answer = (socket) => void socket.write("S");
    await expect(look(target(`${files.ca}.gone`))).rejects.toMatchObject({ code: "usage" });
    await vi.waitFor(() => expect(open.size).toBe(0));
    await new Promise((done) => fake.close(done));
  });

  test("a client shows its certificate where the URL names one", async () => {
    const { cert: sslcert, key: sslkey } = files.client;
    expect(await look(url({ sslmode: "verify-full", sslrootcert: files.ca, sslcert, sslkey }))).toEqual({
      ssl: true,
      client_dn: "/CN=postgres",
    });
    expect(await look(url({ sslmode: "verify-full", sslrootcert: files.ca }))).toMatchObject({
      client_dn: null,
    });
  });

  test("parameters that are a client's own are not sent as settings, and settings are", async () => {
    const sql = await openConnection(url({
      sslmode: "require",
      channel_binding: "require",
      gssencmode: "disable",
      pgbouncer: "true",
      schema: "public",
      statement_timeout: "12345",
      options: "-c lock_timeout=54321",
    }));
    const [row] = await sql.unsafe(
      "select current_setting('statement_timeout') as statement, current_setting('lock_timeout') as lock",
    );
    expect(row).toEqual({ statement: "12345ms", lock: "54321ms" });
    await sql.end({ timeout: 1 });
  });

  test.each(["stream", "poll"] as const)("a worker that has to %s does all of it encrypted", async (mode) => {
    const sql = postgres(server.url(), { max: 1, onnotice() {} });
    const events: WorkerEvent[] = [];
    const source = url({ sslmode: "verify-full", sslrootcert: files.ca });
    await using worker = runWorker({ source, mode, log: (event) => events.push(event) });
    await vi.waitFor(
      () => expect(events).toContainEqual(expect.objectContaining({ kind: "reading", mode })),
      {
        timeout: 20_000,
      },
    );
    const before = (await seen(connect(sql))).length;
    await sql`insert into todos (task) values (${mode})`;
    await vi.waitFor(async () => expect(await seen(connect(sql))).toHaveLength(before + 1), {
      timeout: 20_000,
    });
    const backends = await sql<{ backend_type: string; ssl: boolean }[]>`
      select backend_type, ssl from pg_stat_activity join pg_stat_ssl using (pid) where application_name = 'bemi worker'`;
    expect(backends.map(({ ssl }) => ssl)).not.toContain(false);
    expect(backends.some(({ backend_type }) => backend_type === "walsender")).toBe(mode === "stream");
    await worker.stop();
    await sql.end();
  });

  describe.each(PROCESS_RUNTIMES)("under $name", ({ command }) => {
    const found = command();
    const worker = (source: string) =>
      start({
        command: found ?? [""],
        args: [poll, "--schema", SCHEMA, "--mode", "stream"],
        env: { DATABASE_URL: source },
        cwd: root,
      });

    test.skipIf(!found)("a worker streams encrypted, and shows its certificate", async () => {
      const sql = postgres(server.url(), { max: 1, onnotice() {} });
      const { cert: sslcert, key: sslkey } = files.client;
      const verified = { sslmode: "verify-full", sslrootcert: files.ca, sslcert, sslkey };
      // PostgreSQL 17 brought TLS without a question before it.
      const ways = [verified, ...(Number(version) >= 17 ? [{ ...verified, sslnegotiation: "direct" }] : [])];
      for (const way of ways) {
        await using running = worker(url(way));
        await running.printed(/"mode":"stream"/);
        const before = (await seen(connect(sql))).length;
        // More than one record of TLS, and than the socket holds at once.
        await sql`insert into todos (task) select repeat('x', 1000) from generate_series(1, 5000)`;
        await vi.waitFor(async () => expect(await seen(connect(sql))).toHaveLength(before + 5000), {
          timeout: 60_000,
        });
        const backends = await sql`select backend_type, ssl, client_dn
          from pg_stat_activity join pg_stat_ssl using (pid) where application_name = 'bemi worker'`;
        expect(backends.map(({ backend_type }) => backend_type)).toContain("walsender");
        expect(new Set(backends.map(({ ssl, client_dn }) => `${ssl} ${client_dn}`))).toEqual(
          new Set(["true /CN=postgres"]),
        );
        expect(await running.terminate()).toBe(0);
      }
      await sql.end();
    });

    test.skipIf(!found)("a server that is not the one to be trusted gets nothing", async () => {
      const distrusted = [
        [url({ sslmode: "verify-full", sslrootcert: files.otherCa }), /not trusted/],
        [url({ sslmode: "verify-full", sslrootcert: files.ca }, "127.0.0.1"), /for another host/],
        [`${plain.url()}?sslmode=require`, /offers no TLS/],
      ] as const;
      for (const [source, message] of distrusted) {
        await using running = worker(source);
        await running.printed(message);
        expect(await running.ended()).toBe(3);
      }
    });
  });

  test("a worker whose server is not to be trusted, or has no TLS, ends with the remedy", async () => {
    const ends = (source: string, mode: "stream" | "poll"): Promise<unknown> =>
      runWorker({ source, mode }).finished.catch((error: unknown) => error);
    for (const mode of ["stream", "poll"] as const) {
      expect(await ends(url({ sslmode: "verify-full", sslrootcert: files.otherCa }), mode)).toMatchObject({
        code: "connection_failed",
        hint: expect.stringMatching(/sslrootcert/),
      });
      expect(await ends(`${plain.url()}?sslmode=require`, mode)).toMatchObject({
        code: "connection_failed",
        hint: expect.stringMatching(/Turn ssl on/),
      });
    }
  });

  test("the command line takes TLS from the URL, and from libpq's variables what the URL leaves open", () => {
    const run = (target: string | undefined, env: Record<string, string> = {}) =>
      bemi(["status", "--schema", SCHEMA, ...(target === undefined ? [] : ["--database-url", target])], env);
    const trusted = { PGSSLMODE: "verify-full", PGSSLROOTCERT: files.ca };
    const distrusted = { PGSSLMODE: "verify-full", PGSSLROOTCERT: files.otherCa };
    const { hostname, port } = new URL(url({}));
    const pg = { PGHOST: hostname, PGPORT: port, PGUSER: "postgres", PGDATABASE: "postgres" };
    const db = { DB_HOST: hostname, DB_PORT: port, DB_USER: "postgres", DB_NAME: "postgres" };
    expect(run(url({ sslmode: "verify-full", sslrootcert: files.ca })).status).toBe(0);
    expect(run(url({}), trusted).status).toBe(0);
    expect(run(url({ sslrootcert: files.ca }), distrusted).status).toBe(0);
    for (const variables of [pg, db]) {
      expect(run(undefined, { ...variables, ...trusted }).status).toBe(0);
      expect(run(undefined, { ...variables, ...distrusted })).toMatchObject({
        status: 3,
        stdout: "",
        stderr: expect.stringMatching(/certificate is not trusted.*\n.*sslrootcert/),
      });
    }
    expect(run(url({}), distrusted)).toMatchObject({
      status: 3,
      stderr: expect.stringMatching(/sslrootcert/),
    });
    expect(run(`${plain.url()}?sslmode=require`)).toMatchObject({
      status: 3,
      stderr: expect.stringMatching(/offers no TLS.*\n.*Turn ssl on/),
    });
    expect(run(`${plain.url()}?sslmode=yes`)).toMatchObject({
      status: 2,
      stderr: expect.stringMatching(/verify-full/),
    });
  });

  test("a server that insists on TLS is served, and one that was told not to says what is wrong", () => {
    const target = new URL(url({}));
    target.username = "guarded";
    const run = () => bemi(["status", "--schema", SCHEMA, "--database-url", target.href]);
    expect(run().status).toBe(0);
    target.searchParams.set("sslmode", "disable");
    expect(run()).toMatchObject({ status: 3, stderr: expect.stringMatching(/sslmode/) });
  });
});
