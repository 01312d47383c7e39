import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";

/** A client program of PostgreSQL's, on the path or where Debian puts it. */
export function findClient(name: string): string | undefined {
  const debian = "/usr/lib/postgresql";
  const versions = existsSync(debian) ? readdirSync(debian).sort().reverse() : [];
  return [...(process.env.PATH ?? "").split(":"), ...versions.map((version) => `${debian}/${version}/bin`)]
    .map((folder) => join(folder, name)).find((file) => existsSync(file));
}
