import { readFileSync, statSync } from "node:fs";
import { homedir, userInfo } from "node:os";
import { join } from "node:path";
import process from "node:process";
import type { Target } from "./connection.ts";
import type { Io } from "./io.ts";

/** The target with the password that libpq's password file has for it, where neither it nor PGPASSWORD says one. */
export function withStoredPassword(target: Target, env: Io["env"]): Target {
  if (env.PGPASSWORD) return target;
  if (typeof target !== "string") {
    if (target.password !== undefined) return target;
    const text = (name: string): string | undefined =>
      target[name] === undefined ? undefined : String(target[name]);
    const password = storedPassword({
      host: text("host") ?? env.PGHOST,
      port: text("port"),
      database: text("database"),
      user: text("username"),
    }, env);
    return password === undefined ? target : { ...target, password };
  }
  const [, scheme = "", login = "", address = "", path = "", query = ""] =
    /^(\w+:\/\/)(?:([^@/?#]*)@)?([^/?#]*)(?:\/([^?#]*))?(?:\?(.*))?$/s.exec(target) ?? [];
  const [user = "", known] = login.split(/:(.*)/s);
  if (known) return target;
  // Of several hosts the first one's.
  const [, host, port] = /^(\[[^\]]*\]|[^:,]*)(?::(\d+))?/.exec(address) ?? [];
  const passfile = new URLSearchParams(query).get("passfile") ?? env.PGPASSFILE;
  const password = storedPassword(
    { host, port, database: decoded(path), user: decoded(user) },
    { ...env, PGPASSFILE: passfile },
  );
  if (password === undefined) return target;
  const rest = target.slice(scheme.length).slice(login ? login.length + 1 : 0);
  return `${scheme}${user}:${encodeURIComponent(password)}@${rest}`;
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Whose password is looked for; what is missing is as libpq would have it. */
interface Login {
  readonly host?: string | undefined;
  readonly port?: string | undefined;
  readonly database?: string | undefined;
  readonly user?: string | undefined;
}

/**
 * The password that libpq's password file has for a login: of the first line that fits, `host:port:database:user:password`
 * with `*` for any and a backslash before `:` and itself. A file that others can read is left alone, as psql does.
 */
function storedPassword(login: Login, env: Io["env"]): string | undefined {
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
