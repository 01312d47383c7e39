import { spawnSync } from "node:child_process";
import process from "node:process";
import { fileURLToPath } from "node:url";
import postgres from "postgres";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { openClient } from "../src/cli/connection.ts";
import { install } from "../src/install/mod.ts";
import { createSlot } from "../src/worker/mod.ts";
import { openConnection } from "../src/worker/connection.ts";
import { openProxy } from "./chaos/proxy.ts";
import { type Server, startServer } from "./support/servers.ts";

const version = inject("servers").at(-1)?.version ?? "";

const bin = fileURLToPath(new URL("../dist/src/cli/bin.js", import.meta.url));

/** Nothing listens there. */
const NOBODY = "127.0.0.1:1";

describe(`several hosts in a URL, on PostgreSQL ${version}`, () => {
  let primary: Server;
  let standby: Server;

  beforeAll(async () => {
    primary = await startServer(version);
    const sql = postgres(primary.url(), { max: 1, onnotice() {} });
    await install(sql);
    await createSlot(sql);
    await sql.end();
    standby = await primary.copy("standby", [
      `primary_conninfo=host=127.0.0.1 port=${new URL(primary.url()).port} user=postgres`,
    ]);
    await standby.start();
  });

  afterAll(async () => {
    await standby?.remove();
    await primary?.remove();
  });

  const url = (hosts: readonly (Server | string)[], parameters = ""): string => {
    const names = hosts.map((host) => typeof host === "string" ? host : new URL(host.url()).host);
    return `postgres://postgres@${names.join(",")}/postgres${parameters}`;
  };

  async function isPrimary(target: string): Promise<unknown> {
    const clients = [await openConnection(target), openClient(target)];
    try {
      const answers = clients.map(async (sql) => {
        const [row] = await sql.unsafe("select not pg_is_in_recovery() as yes") as { yes: boolean }[];
        return row?.yes;
      });
      const [first, second] = await Promise.allSettled(answers);
      expect(second).toMatchObject(
        first?.status === "rejected" ? { reason: { code: first.reason.code } } : { value: first?.value },
      );
      return await answers[0];
    } finally {
      await Promise.all(clients.map((sql) => sql.end({ timeout: 1 })));
    }
  }

  test("the first that answers is taken", async () => {
    expect(await isPrimary(url([NOBODY, primary, standby]))).toBe(true);
    expect(await isPrimary(url([standby, primary, NOBODY]))).toBe(false);
    // One that hangs up, as a proxy does with nothing behind it.
    using proxy = await openProxy(() => ({ host: "127.0.0.1", port: 1 }));
    expect(await isPrimary(url([`127.0.0.1:${proxy.port}`, primary]))).toBe(true);
  });

  test("target_session_attrs says which, wherever it stands", async () => {
    for (const parameter of ["primary", "read-write"]) {
      for (const hosts of [[standby, primary], [primary, standby], [NOBODY, standby, standby, primary]]) {
        expect(await isPrimary(url(hosts, `?target_session_attrs=${parameter}`))).toBe(true);
      }
    }
    expect(await isPrimary(url([primary, NOBODY, standby], "?target_session_attrs=standby"))).toBe(false);
    expect(await isPrimary(url([standby, primary], "?target_session_attrs=any"))).toBe(false);
    await expect(isPrimary(url([primary], "?target_session_attrs=first"))).rejects.toMatchObject({
      code: "usage",
    });
  });

  test("where none is to be had, that is an error", async () => {
    await expect(isPrimary(url([NOBODY, "127.0.0.1:2"]))).rejects.toMatchObject({ code: "ECONNREFUSED" });
    await expect(isPrimary(url([standby, NOBODY], "?target_session_attrs=primary"))).rejects.toMatchObject({
      code: "ECONNREFUSED",
    });
    for (const hosts of [[standby], [standby, standby]]) {
      await expect(isPrimary(url(hosts, "?target_session_attrs=primary"))).rejects.toMatchObject({
        code: "CONNECT_NO_HOST",
      });
    }
  });

  test("the command line and the worker say so, and end", () => {
    const bemi = (command: readonly string[], target: string) =>
      spawnSync(process.execPath, [bin, ...command, "--database-url", target], {
        encoding: "utf8",
        env: { PATH: process.env.PATH ?? "" },
        timeout: 60_000,
      });
    expect(bemi(["worker", "--once"], url([standby]))).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(
        /The server takes no writes \(SQLSTATE 25006\)\n {2}It is a standby[^\n]*\n$/,
      ),
    });
    for (const command of [["status"], ["worker", "--once"]]) {
      expect(bemi(command, url([NOBODY, "127.0.0.1:2"]))).toMatchObject({
        status: 3,
        stderr: expect.stringContaining("nothing listens there\n"),
      });
      expect(bemi(command, url([standby, standby], "?target_session_attrs=primary"))).toMatchObject({
        status: 3,
        stderr: expect.stringContaining("none of the hosts is what target_session_attrs asks for\n"),
      });
    }
  });
});
