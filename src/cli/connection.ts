import postgres from "postgres";
import { BemiError } from "../errors.ts";
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
  if (env.PGHOST ?? env.PGDATABASE ?? env.PGUSER ?? env.PGPORT) return {};
  if (env.DB_HOST ?? env.DB_NAME) {
    return {
      host: env.DB_HOST ?? "127.0.0.1",
      port: Number(env.DB_PORT ?? 5432),
      database: env.DB_NAME ?? "postgres",
      username: env.DB_USER ?? "postgres",
      ...(env.DB_PASSWORD === undefined ? {} : { password: env.DB_PASSWORD }),
    };
  }
  throw new BemiError("usage", "Which database?", {
    hint: "Pass --database-url postgres://user:password@host:5432/database, or set DATABASE_URL.",
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
    connect_timeout: 15,
    connection: { application_name: "bemi" },
  };
  const sql = "url" in target ? postgres(target.url, options) : postgres({ ...target, ...options });
  try {
    return await fn(sql);
  } finally {
    await sql.end({ timeout: 1 });
  }
}
