import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { chmodSync, chownSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { binaries } from "./binaries.ts";

/** A real PostgreSQL of one's own, on a free port of the loopback interface. */
export interface Server {
  readonly version: string;
  url(database?: string): string;
  /** `immediate` is a crash. */
  stop(mode?: "fast" | "immediate"): Promise<void>;
  start(): Promise<void>;
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
  const folder = mkdtempSync(join(tmpdir(), `bemi-pg${version}-`));
  const user = unprivileged();
  if (user) chownSync(folder, user.uid, user.gid);
  chmodSync(folder, 0o700);
  const data = join(folder, "data");
  const initdb = spawnSync(
    join(native, "bin/initdb"),
    ["-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
    { ...user, cwd: folder, encoding: "utf8" },
  );
  if (initdb.status !== 0) throw new Error(`initdb failed: ${initdb.stderr}${initdb.error ?? ""}`);
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
    remove: async () => {
      await server.stop("immediate");
      rmSync(folder, { recursive: true, force: true });
    },
  };
  await server.start();
  return server;
}

function ready(child: ChildProcess): Promise<void> {
  return new Promise((done, fail) => {
    let log = "";
    child.once("error", fail);
    child.once("exit", () => fail(new Error(`PostgreSQL did not start: ${log}`)));
    child.stderr?.on("data", (chunk: Uint8Array) => {
      log += chunk.toString();
      if (log.includes("is ready to accept connections") || log.includes("redirecting log output")) done();
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
