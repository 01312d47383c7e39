import { startServer } from "../support/servers.ts";
import type { LaneName } from "./lane.ts";

/** The server that each path has, as a URL that ends where the database's name begins. */
export type Servers = Readonly<Record<LaneName, string>>;

// For speed alone: nothing here has to survive a crash.
const SETTINGS = [
  "fsync=off",
  "full_page_writes=off",
  "autovacuum=off",
  "max_wal_size=8GB",
  "checkpoint_timeout=1h",
  "shared_buffers=128MB",
];

/** Servers for long runs: who reads the WAL has one of its own, for decoding reads what all databases of a server wrote. */
export async function startServers(version: string): Promise<Servers & AsyncDisposable> {
  const [plain, poll, stream] = await Promise.all([
    startServer(version, SETTINGS),
    startServer(version, SETTINGS),
    startServer(version, SETTINGS),
  ]);
  return {
    plain: plain.url(""),
    trigger: plain.url(""),
    poll: poll.url(""),
    stream: stream.url(""),
    [Symbol.asyncDispose]: async () => {
      for (const server of [plain, poll, stream]) await server.remove();
    },
  };
}

/** All on one server, which will do for a few scenarios. */
export function oneServer(url: string): Servers {
  return { plain: url, trigger: url, poll: url, stream: url };
}
