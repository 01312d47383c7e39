import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { TestProject } from "vitest/node";
import { type Server, startServer } from "./servers.ts";

declare module "vitest" {
  interface ProvidedContext {
    servers: readonly { version: string; url: string }[];
  }
}

/** Builds dist once, and starts the servers of TEST_SERVERS (major versions, by default 15 and 18) once for the whole run. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  build();
  const versions = (process.env.TEST_SERVERS ?? "15,18").split(",").filter(Boolean);
  const servers: Server[] = [];
  for (const version of versions) servers.push(await startServer(version));
  project.provide("servers", servers.map((server) => ({ version: server.version, url: server.url("") })));
  return async () => {
    await Promise.all(servers.map((server) => server.remove()));
  };
}

function build(): void {
  const cwd = fileURLToPath(new URL("../../", import.meta.url));
  const { status, stdout, stderr } = spawnSync("npm", ["run", "--silent", "build"], {
    cwd,
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(stdout + stderr);
}
