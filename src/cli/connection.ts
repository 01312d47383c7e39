import postgres from "postgres";
import { BemiError } from "../errors.ts";
import { eachInTurn } from "../worker/hosts.ts";
import { openSocket } from "../worker/socket.ts";
import { splitTarget } from "../worker/tls-settings.ts";
import type { Io } from "./io.ts";
import { withStoredPassword } from "./passfile.ts";

/** Where to connect: a URL, or postgres.js' options made of variables, with what is said of TLS as a URL names it. */
export type Target = string | Readonly<Record<string, string | number>>;

/** libpq's variables for TLS, which hold for whatever a URL leaves open. */
const TLS_VARIABLES = {
  PGSSLMODE: "sslmode",
  PGSSLROOTCERT: "sslrootcert",
  PGSSLCERT: "sslcert",
  PGSSLKEY: "sslkey",
  PGSSLNEGOTIATION: "sslnegotiation",
  PGSSLMINPROTOCOLVERSION: "ssl_min_protocol_version",
} as const;

/** Where libpq's password file is. */
const PASSFILE_VARIABLES = ["PGPASSFILE", "HOME", "APPDATA"];

/**
 * Finds out where to connect: the flag, DATABASE_URL, libpq's PG* variables, Bemi's DB_* variables; a password that none
 * of them has is looked for in libpq's password file.
 *
 * @throws {BemiError} `usage` where nothing says it, or a URL is none; the URL itself is never shown
 */
export function connectionTarget(flag: string | undefined, env: Io["env"], name = "--database-url"): Target {
  return withStoredPassword(targetOf(flag, env, name), env);
}

function targetOf(flag: string | undefined, env: Io["env"], name: string): Target {
  const url = flag ?? env.DATABASE_URL;
  if (url) {
    if (isPostgresUrl(url)) return withTls(url, env);
    throw new BemiError("usage", `${flag ? name : "DATABASE_URL"} is no PostgreSQL URL`, {
      hint:
        "Write it as postgres://user:password@host:5432/database, and in the password %25 for %, %2F for /, " +
        "%3F for ? and %23 for #.",
    });
  }
  // postgres.js reads libpq's variables by itself.
  if (env.PGHOST ?? env.PGDATABASE ?? env.PGUSER ?? env.PGPORT) {
    portOf("PGPORT", env.PGPORT);
    return tlsVariables(env);
  }
  if (env.DB_HOST ?? env.DB_NAME) {
    return {
      ...tlsVariables(env),
      host: env.DB_HOST ?? "127.0.0.1",
      port: portOf("DB_PORT", env.DB_PORT),
      database: env.DB_NAME ?? "postgres",
      username: env.DB_USER ?? "postgres",
      ...(env.DB_PASSWORD === undefined ? {} : { password: env.DB_PASSWORD }),
    };
  }
  throw new BemiError("usage", "Which database?", {
    hint: "Pass --database-url postgres://user:password@host:5432/database, or set DATABASE_URL.",
  });
}

/** What may say where to connect, of what {@linkcode connectionTarget} goes by. */
export function sourceOf(env: Io["env"]): string {
  if (env.DATABASE_URL) return "--database-url or DATABASE_URL";
  const set = (names: readonly string[]): string[] => names.filter((name) => env[name] !== undefined);
  const libpq = set(["PGHOST", "PGPORT", "PGDATABASE", "PGUSER"]);
  const own = set(["DB_HOST", "DB_PORT", "DB_NAME", "DB_USER"]);
  if (libpq.length > 0) {
    return `--database-url or ${libpq.join(", ")}${
      own.length > 0 ? `, which put ${own.join(", ")} aside` : ""
    }`;
  }
  return `--database-url${own.length > 0 ? ` or ${own.join(", ")}` : " or DATABASE_URL"}`;
}

/** A second database's URL, for which only the variables for TLS and for the password file hold. */
export function otherTarget(url: string, env: Io["env"]): Target {
  const names = [...Object.keys(TLS_VARIABLES), ...PASSFILE_VARIABLES];
  return connectionTarget(
    url,
    Object.fromEntries(names.map((name) => [name, env[name]])),
    "--destination-url",
  );
}

function isPostgresUrl(url: string): boolean {
  // Several hosts, as libpq takes them, are no URL to the runtime.
  const [first = ""] = /^[a-z]+:\/\/(?:[^@/?#]*@)?[^,/?#]*/.exec(url) ?? [];
  try {
    const { protocol, username, password } = new URL(first);
    decodeURIComponent(username + password);
    return /^postgres(?:ql)?:$/.test(protocol);
  } catch {
    return false;
  }
}

function withTls(url: string, env: Io["env"]): string {
  const [address, query = ""] = url.split(/\?(.*)/s);
  const parameters = new URLSearchParams(query);
  for (const [name, value] of Object.entries(tlsVariables(env))) {
    // `ssl` is the driver's own word for the mode.
    const isSaid = parameters.has(name) || name === "sslmode" && parameters.has("ssl");
    if (!isSaid) parameters.set(name, value);
  }
  return parameters.size > 0 ? `${address}?${parameters}` : url;
}

function tlsVariables(env: Io["env"]): Record<string, string> {
  return Object.fromEntries(
    Object.entries(TLS_VARIABLES).flatMap(([name, parameter]) => env[name] ? [[parameter, env[name]]] : []),
  );
}

function portOf(name: string, text = "5432"): number {
  const port = Number(text || 5432);
  if (Number.isInteger(port) && port > 0 && port < 65536) return port;
  throw new BemiError("usage", `${name} is no port`, {
    hint: "Write a number from 1 to 65535, such as 5432.",
  });
}

/** A client with one connection, encrypted as the target says. Notices of ours go to `onNotice`. */
export function openClient(target: Target, onNotice?: (message: string) => void): postgres.Sql {
  const { rest, tls } = splitTarget(target);
  const options = {
    max: 1,
    onnotice: ({ message }: postgres.Notice) => {
      if (message?.startsWith("bemi: ")) onNotice?.(message);
    },
    // Asked by names that a search path can lead astray, and its failure would end the process.
    fetch_types: false,
    connect_timeout: 15,
    ...eachInTurn((address) => openSocket(address, tls)),
    ssl: false,
    connection: { application_name: "bemi" },
  } as unknown as postgres.Options<Record<string, never>>;
  return typeof rest === "string" ? postgres(rest, options) : postgres({ ...rest, ...options });
}

/** Runs `fn` with a connection of its own, closed afterwards. */
export async function withConnection<R>(
  flag: string | undefined,
  io: Io,
  fn: (sql: postgres.Sql) => Promise<R>,
  onNotice?: (message: string) => void,
): Promise<R> {
  const target = connectionTarget(flag, io.env);
  const sql = openClient(target, onNotice);
  try {
    await trustCatalog(sql);
    return await fn(sql);
  } finally {
    await sql.end({ timeout: 1 });
  }
}

/**
 * Where somebody's schema comes before pg_catalog, its functions and operators would run with this role's rights, which
 * may be a superuser's. Elsewhere nothing is set, for behind a pooler others would get the setting.
 */
async function trustCatalog(sql: postgres.Sql): Promise<void> {
  const [row] = await sql<{ path: string }[]>`select pg_catalog.current_setting('search_path') as path`;
  const path = row?.path ?? "";
  if (!/\bpg_catalog\b/.test(path) || /^\s*"?pg_catalog\b/.test(path)) return;
  await sql`select pg_catalog.set_config('search_path', ${`pg_catalog, ${path}`}, false)`;
}
