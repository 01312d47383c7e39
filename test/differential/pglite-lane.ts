import { PGlite } from "@electric-sql/pglite";
import { citext } from "@electric-sql/pglite/contrib/citext";
import { hstore } from "@electric-sql/pglite/contrib/hstore";
import { connect } from "../../src/database/connect.ts";
import { collectFrom, prepareDatabase } from "./lane-database.ts";
import type { Lane, LaneName, LaneTemplate } from "./lane.ts";

const extensions = { hstore, citext };

/** Lanes in PGlite, which has one session. */
export async function pgliteTemplate(name: LaneName): Promise<LaneTemplate> {
  const first = await PGlite.create({ extensions });
  await prepareDatabase(name, first);
  const loadDataDir = await first.dumpDataDir("none");
  await first.close();
  return {
    open: async () => openPgliteLane(name, await PGlite.create({ extensions, loadDataDir })),
    [Symbol.asyncDispose]: async () => {},
  };
}

async function openPgliteLane(name: LaneName, db: PGlite): Promise<Lane> {
  const inspect = connect(db);
  const [shown] = await inspect.query<{ version: string }>(
    "select current_setting('server_version_num') as version",
  );
  return {
    name,
    encoding: "UTF8",
    inspect,
    session: inspect,
    version: Math.floor(Number(shown?.version) / 10000),
    begin: async (settings) => {
      await db.exec("set application_name = 'differential'");
      for (const { name: key, value } of settings) await db.exec(`set ${key} = '${value}'`);
    },
    execute: async ({ sql, protocol, data = "" }) => {
      try {
        if (protocol === "copy") {
          await db.query(sql.replace("stdin", "'/dev/blob'"), [], { blob: new Blob([data]) });
        } else if (protocol === "prepared") await db.query(sql);
        else await db.exec(sql);
        return "ok";
      } catch (error) {
        const { code } = error as { code?: unknown };
        if (typeof code !== "string") throw error;
        return code;
      }
    },
    end: async () => {
      await db.exec("rollback");
      await db.exec("reset all; discard temp");
    },
    collect: (first) => collectFrom(name, inspect, first),
    [Symbol.asyncDispose]: () => db.close(),
  };
}
