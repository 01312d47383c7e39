import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { chmodSync, chownSync, cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import postgres from "postgres";
import { binaries } from "./binaries.ts";

/** A real PostgreSQL of one's own, on a free port of the loopback interface. */
export interface Server {
  readonly version: string;
  url(database?: string): string;
  /** `immediate` is a crash. */
  stop(mode?: "fast" | "immediate"): Promise<void>;
  start(): Promise<void>;
  /** Another server from a base backup of this one: `standby` follows it, `restore` begins a timeline of its own. */
  copy(kind: "standby" | "restore" | "files", settings?: readonly string[]): Promise<Server>;
  /** Stops it and removes its files. */
  remove(): Promise<void>;
}

const SETTINGS = [
  "wal_level=logical",
  "max_connections=200",
  "max_prepared_transactions=10",
  "max_replication_slots=30",
  "max_wal_senders=30",
  "listen_addresses=127.0.0.1",
  "unix_socket_directories=",
  "shared_buffers=64MB",
];

/** @param settings further `name=value`, such as `wal_level=replica`; `fsync=off` is the default */
export async function startServer(
  version: string,
  settings: readonly string[] = ["fsync=off"],
): Promise<Server> {
  const native = await binaries(version);
  const folder = ownFolder(version);
  const initdb = spawnSync(
    join(native, "bin/initdb"),
    ["-D", join(folder, "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
    { ...unprivileged(), cwd: folder, encoding: "utf8" },
  );
  if (initdb.status !== 0) throw new Error(`initdb failed: ${initdb.stderr}${initdb.error ?? ""}`);
  const server = await serverIn(version, folder, settings);
  await server.start();
  return server;
}

/** In TEST_DATA_FOLDER, as on a disk in memory, else where temporary files are. */
function ownFolder(version: string): string {
  const folder = mkdtempSync(join(process.env.TEST_DATA_FOLDER ?? tmpdir(), `bemi-pg${version}-`));
  const user = unprivileged();
  if (user) chownSync(folder, user.uid, user.gid);
  chmodSync(folder, 0o700);
  return folder;
}

async function serverIn(version: string, folder: string, settings: readonly string[]): Promise<Server> {
  const native = await binaries(version);
  const user = unprivileged();
  const data = join(folder, "data");
  const port = await freePort();
  let child: ChildProcess | undefined;
  const server: Server = {
    version,
    url: (database = "postgres") => `postgres://postgres@127.0.0.1:${port}/${database}`,
    start: async () => {
      const options = [...SETTINGS, ...settings].flatMap((setting) => ["-c", setting]);
      child = spawn(join(native, "bin/postgres"), ["-D", data, "-p", String(port), ...options], {
        ...user,
        cwd: folder,
        stdio: ["ignore", "ignore", "pipe"],
      });
      await ready(child);
      // What it logs afterwards must be read, or it would block.
      child.stderr?.on("data", () => {});
    },
    stop: async (mode = "fast") => {
      const running = child;
      if (!running || running.exitCode !== null) return;
      const gone = new Promise<void>((done) => running.once("exit", () => done()));
      running.kill(mode === "fast" ? "SIGINT" : "SIGQUIT");
      await gone;
      child = undefined;
    },
    copy: async (kind, more = []) => {
      const target = ownFolder(version);
      await backUp(server, data, join(target, "data"), kind);
      if (user) spawnSync("chown", ["-R", `${user.uid}:${user.gid}`, target]);
      const own = kind === "restore" ? ["restore_command=false", "hot_standby=off"] : [];
      return await serverIn(version, target, [...settings, ...own, ...more]);
    },
    remove: async () => {
      await server.stop("immediate");
      rmSync(folder, { recursive: true, force: true });
    },
  };
  return server;
}

/**
 * A base backup by the low-level API (PostgreSQL documentation, 25.3.4), for the test servers come without
 * pg_basebackup. As that does, it leaves out the replication slots. `files` copies them, with the server stopped.
 */
async function backUp(
  server: Server,
  from: string,
  to: string,
  kind: "standby" | "restore" | "files",
): Promise<void> {
  if (kind === "files") {
    await server.stop("fast");
    cpSync(from, to, { recursive: true });
    return await server.start();
  }
  const sql = postgres(server.url(), { max: 1, onnotice() {} });
  await sql`select pg_backup_start('copy', true)`;
  cpSync(from, to, {
    recursive: true,
    filter: (path) => !/[/](?:postmaster\.pid|postmaster\.opts|pg_replslot[/].*)$/.test(path),
  });
  const [row] = await sql<{ labelfile: string }[]>`select labelfile from pg_backup_stop(false)`;
  await sql.end();
  cpSync(join(from, "pg_wal"), join(to, "pg_wal"), { recursive: true, force: true });
  writeFileSync(join(to, "backup_label"), row?.labelfile ?? "");
  writeFileSync(join(to, kind === "standby" ? "standby.signal" : "recovery.signal"), "");
}

function ready(child: ChildProcess): Promise<void> {
  return new Promise((done, fail) => {
    let log = "";
    child.once("error", fail);
    child.once("exit", () => fail(new Error(`PostgreSQL did not start: ${log}`)));
    child.stderr?.on("data", (chunk: Uint8Array) => {
      log += chunk.toString();
      if (
        /is ready to accept (?:read-only )?connections/.test(log) || log.includes("redirecting log output")
      ) done();
    });
  });
}

// initdb and postgres refuse to run as root.
export function unprivileged(): { uid: number; gid: number } | undefined {
  if (process.getuid?.() !== 0) return undefined;
  for (const name of ["postgres", "nobody"]) {
    const [uid, gid] = ["-u", "-g"].map((flag) =>
      Number(spawnSync("id", [flag, name], { encoding: "utf8" }).stdout)
    );
    if (uid && gid) return { uid, gid };
  }
  return { uid: 65534, gid: 65534 };
}

export function freePort(): Promise<number> {
  return new Promise((done, fail) => {
    const probe = createServer().once("error", fail).listen(0, "127.0.0.1", () => {
      const address = probe.address();
      probe.close(() => done(typeof address === "object" && address ? address.port : 0));
    });
  });
}
