import type { Socket } from "node:net";
import postgres from "postgres";
import { BemiError } from "../errors.ts";
import { openSocket } from "../worker/socket.ts";
import type { Io } from "./io.ts";

/** Where to connect: a URL, or postgres.js' options made of variables. */
export type Target = { readonly url: string } | {
  readonly host?: string;
  readonly port?: number;
  readonly database?: string;
  readonly username?: string;
  readonly password?: string;
};

/**
 * Finds out where to connect: the flag, DATABASE_URL, libpq's PG* variables, Bemi's DB_* variables.
 *
 * @throws {BemiError} `usage` where nothing says it, or a URL is none; the URL itself is never shown
 */
export function connectionTarget(flag: string | undefined, env: Io["env"], name = "--database-url"): Target {
  const url = flag ?? env.DATABASE_URL;
  if (url) {
    if (URL.canParse(url) && /^postgres(ql)?:$/.test(new URL(url).protocol)) return { url };
    throw new BemiError("usage", `${flag ? name : "DATABASE_URL"} is no PostgreSQL URL`, {
      hint: "Write it as postgres://user:password@host:5432/database.",
    });
  }
  // postgres.js reads libpq's variables by itself.
  if (env.PGHOST ?? env.PGDATABASE ?? env.PGUSER ?? env.PGPORT) {
    portOf("PGPORT", env.PGPORT);
    return {};
  }
  if (env.DB_HOST ?? env.DB_NAME) {
    return {
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

function portOf(name: string, text = "5432"): number {
  const port = Number(text || 5432);
  if (Number.isInteger(port) && port > 0 && port < 65536) return port;
  throw new BemiError("usage", `${name} is no port`, {
    hint: "Write a number from 1 to 65535, such as 5432.",
  });
}

/** Runs `fn` with a connection of its own, closed afterwards. */
export async function withConnection<R>(
  flag: string | undefined,
  io: Io,
  fn: (sql: postgres.Sql) => Promise<R>,
): Promise<R> {
  const target = connectionTarget(flag, io.env);
  const options = {
    max: 1,
    onnotice: () => {},
    // Asked by names that a search path can lead astray, and its failure would end the process.
    fetch_types: false,
    connect_timeout: 15,
    socket: openSocket as unknown as () => Promise<Socket>,
    connection: { application_name: "bemi" },
  };
  const sql = "url" in target ? postgres(target.url, options) : postgres({ ...target, ...options });
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
