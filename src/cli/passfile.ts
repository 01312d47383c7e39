import { readFileSync, statSync } from "node:fs";
import { homedir, userInfo } from "node:os";
import { join } from "node:path";
import process from "node:process";
import type { Io } from "./io.ts";

/** Whose password is looked for; what is missing is as libpq would have it. */
export interface Login {
  readonly host?: string | undefined;
  readonly port?: string | undefined;
  readonly database?: string | undefined;
  readonly user?: string | undefined;
}

/**
 * The password that libpq's password file has for a login: of the first line that fits, `host:port:database:user:password`
 * with `*` for any and a backslash before `:` and itself. A file that others can read is left alone, as psql does.
 */
export function storedPassword(login: Login, env: Io["env"]): string | undefined {
  const user = login.user || env.PGUSER || userInfo().username;
  const wanted = [
    !login.host || login.host.startsWith("/") ? "localhost" : login.host,
    login.port || env.PGPORT || "5432",
    login.database || env.PGDATABASE || user,
    user,
  ];
  for (const line of lines(passfile(env))) {
    if (line.startsWith("#")) continue;
    const fields = [...line.matchAll(/((?:[^:\\]|\\.)*)(?::|$)/g)].map(([, field = ""]) => field);
    if (wanted.every((value, i) => fields[i] === "*" || unescaped(fields[i]) === value)) {
      return unescaped(fields[4]);
    }
  }
  return undefined;
}

const unescaped = (field = ""): string => field.replace(/\\(.)/g, "$1");

function passfile(env: Io["env"]): string {
  if (env.PGPASSFILE) return env.PGPASSFILE;
  return process.platform === "win32"
    ? join(env.APPDATA ?? "", "postgresql", "pgpass.conf")
    : join(env.HOME ?? homedir(), ".pgpass");
}

function lines(file: string): string[] {
  try {
    const isOpen = process.platform !== "win32" && (statSync(file).mode & 0o077) !== 0;
    return isOpen ? [] : readFileSync(file, "utf8").split(/\r?\n/);
  } catch {
    return [];
  }
}
