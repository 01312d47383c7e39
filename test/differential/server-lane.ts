import process from "node:process";
import postgres from "postgres";
import { connect } from "../../src/database/connect.ts";
import { copyIn } from "../../src/worker/sql.ts";
import { VALUE_SETTINGS } from "../../src/worker/values.ts";
import { collectFrom, prepareDatabase } from "./lane-database.ts";
import { followWal } from "./lane-worker.ts";
import type { Lane, LaneName, LaneTemplate } from "./lane.ts";
import type { Statement } from "./statements.ts";

const quiet = { onnotice() {} };

let counter = 0;

export interface ServerLane {
  readonly name: LaneName;
  /** URL that ends where the database's name begins. */
  readonly server: string;
  readonly encoding: string;
}

/** Lanes on a real server, each a copy of one database. */
export async function serverTemplate(lane: ServerLane): Promise<LaneTemplate> {
  const { name, server, encoding } = lane;
  const template = `lane_${process.pid}_${name}_${encoding.toLowerCase()}`;
  const admin = postgres(`${server}postgres`, { max: 1, ...quiet });
  await admin.unsafe(`create database ${template} encoding '${encoding}' locale 'C' template template0`);
  const first = postgres(server + template, { max: 1, ...quiet });
  await prepareDatabase(name, first);
  await first.end({ timeout: 5 });
  return {
    open: async () => {
      const database = `${template}_${++counter}`;
      await admin.unsafe(`create database ${database} template ${template}`);
      return await openServerLane(lane, database, async () => {
        await admin.unsafe(`drop database if exists ${database} with (force)`).catch(() => {});
      });
    },
    [Symbol.asyncDispose]: async () => {
      await admin.unsafe(`drop database if exists ${template} with (force)`).catch(() => {});
      await admin.end({ timeout: 5 });
    },
  };
}

async function openServerLane(
  { name, server, encoding }: ServerLane,
  database: string,
  drop: () => Promise<void>,
): Promise<Lane> {
  const url = server + database;
  const pinned = Object.fromEntries(
    Object.entries(VALUE_SETTINGS).filter(([key]) => key !== "client_encoding"),
  );
  const inspector = postgres(url, {
    max: 3,
    ...quiet,
    connection: { ...pinned, search_path: "public", default_transaction_isolation: "read committed" },
  });
  const inspect = connect(inspector);
  // A snapshot that is held keeps dead rows in their places. Who else happens to have one would say otherwise when a page is
  // pruned and where the next row goes, and with that in which order a statement meets its rows and fires their triggers.
  const holder = await inspector.reserve();
  await holder.unsafe("begin isolation level repeatable read; select from pg_class limit 1");
  const wal = name === "poll" || name === "stream"
    ? await followWal({ inspector, url, mode: name })
    : undefined;
  const [shown] = await inspector`show server_version_num`;
  let session: postgres.Sql | undefined;
  let isChanged = false;
  return {
    name,
    encoding,
    inspect,
    get session() {
      if (!session) throw new Error("No session");
      return connect(session);
    },
    version: Math.floor(Number(shown?.server_version_num) / 10000),
    begin: async (settings) => {
      isChanged = false;
      for (const { by, name: key, value } of settings) {
        if (by === "session") continue;
        await inspect.execute(
          `alter ${
            by === "role" ? "role postgres in database" : "database"
          } ${database} set ${key} = '${value}'`,
        );
        isChanged = true;
      }
      if (isChanged) await session?.end({ timeout: 5 });
      if (isChanged || !session) {
        session = postgres(url, {
          max: 1,
          ...quiet,
          fetch_types: false,
          // Given here it stands even after RESET ALL.
          connection: { application_name: "differential", lock_timeout: 300 },
        });
      }
      for (const { by, name: key, value } of settings) {
        if (by === "session") await session.unsafe(`set ${key} = '${value}'`);
      }
    },
    execute: async (statement) => {
      if (!session) throw new Error("No session");
      return await send(session, name, statement);
    },
    end: async () => {
      if (!session) return;
      await session.unsafe("rollback");
      for (
        const { gid }
          of await inspector`select gid from pg_prepared_xacts where database = current_database()`
      ) {
        await inspector.unsafe(`rollback prepared '${gid}'`);
      }
      await session.unsafe("reset all; discard temp");
      if (isChanged) {
        await inspect.execute(`alter role postgres in database ${database} reset all`);
        await inspect.execute(`alter database ${database} reset all`);
        await session.end({ timeout: 5 });
        session = undefined;
      }
    },
    collect: async (first) => {
      await wal?.caughtUp();
      return await collectFrom(name, inspect, first);
    },
    [Symbol.asyncDispose]: async () => {
      await session?.end({ timeout: 5 });
      await wal?.[Symbol.asyncDispose]();
      holder.release();
      await inspector.end({ timeout: 5 });
      await drop();
    },
  };
}

async function send(
  session: postgres.Sql,
  name: LaneName,
  { sql: text, protocol, data = "" }: Statement,
): Promise<string> {
  // Prepared transactions share one name space in the cluster.
  const sql = text.replace(/(?<= prepared '|prepare transaction ')/, `${name} `);
  try {
    if (protocol === "copy") {
      const copy = await copyIn(session as never, sql);
      await copy.write(data);
      await copy.end();
    } else if (protocol === "prepared") {
      await session.unsafe(sql, [], { prepare: true, simple: false } as never);
    } else await session.unsafe(sql);
    return "ok";
  } catch (error) {
    const { code } = error as { code?: unknown };
    if (typeof code !== "string" || !/^[0-9A-Z]{5}$/.test(code)) throw error;
    return code;
  }
}
