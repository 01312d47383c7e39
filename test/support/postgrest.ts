import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import type postgres from "postgres";

/** What signs the tokens. */
const SECRET = "a secret of the test's, long enough for HS256";

const encode = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url");
const sign = (text: string): string => createHmac("sha256", SECRET).update(text).digest("base64url");

/** A token as the host of the API issues them. */
export function token(claims: object): string {
  const text = `${encode({ alg: "HS256", typ: "JWT" })}.${encode(claims)}`;
  return `${text}.${sign(text)}`;
}

function verified(request: IncomingMessage): { role?: string } {
  const given = /^Bearer (.*)$/.exec(request.headers.authorization ?? "")?.[1];
  if (given === undefined) return {};
  const [head, body = "", signature = ""] = given.split(".");
  const [mine, theirs] = [Buffer.from(sign(`${head}.${body}`)), Buffer.from(signature)];
  if (mine.length !== theirs.length || !timingSafeEqual(mine, theirs)) {
    throw { code: "PGRST301", message: "JWT" };
  }
  return JSON.parse(Buffer.from(body, "base64url").toString()) as { role?: string };
}

/**
 * A server that does to the database what PostgREST 12 does: one transaction a request, in it the role and the
 * `request.*` settings, local to it, then one statement with the body as its parameter. It exposes the schema public.
 */
export async function postgrest(
  authenticator: postgres.Sql,
): Promise<AsyncDisposable & { readonly url: string }> {
  const server = createServer((request, response) => {
    respond(request, authenticator).then(([status, body]) => {
      response.writeHead(status, { "content-type": "application/json" }).end(body);
    }, (error: { code?: string; message?: string }) => {
      const status = error.code === "42501"
        ? 403
        : error.code === "42P01" || error.code === "42883"
        ? 404
        : 400;
      response.writeHead(status, { "content-type": "application/json" })
        .end(JSON.stringify({ code: error.code, message: error.message, details: null, hint: null }));
    });
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((done) => server.close(done));
    },
  };
}

async function respond(request: IncomingMessage, sql: postgres.Sql): Promise<[status: number, body: string]> {
  const { pathname, searchParams } = new URL(request.url ?? "/", "http://localhost");
  let body = "";
  for await (const chunk of request.setEncoding("utf8")) body += String(chunk);
  const claims = verified(request);
  const role = claims.role ?? "anon";
  return await sql.begin(async (tx) => {
    await tx`select set_config('search_path', 'public', true), set_config('role', ${role}, true),
      set_config('request.jwt.claims', ${JSON.stringify({ ...claims, role })}, true),
      set_config('request.method', ${
      request.method ?? ""
    }, true), set_config('request.path', ${pathname}, true),
      set_config('request.headers', ${JSON.stringify(request.headers)}, true),
      set_config('request.cookies', '{}', true)`;
    const { text, parameters } = statement(request.method ?? "", pathname, searchParams, body);
    const [row] = await tx.unsafe<{ body: string }[]>(text, parameters);
    return [request.method === "POST" ? 201 : 200, row?.body ?? "[]"];
  });
}

const quoted = (name: string): string => `"${name.replaceAll('"', '""')}"`;

function statement(
  method: string,
  path: string,
  search: URLSearchParams,
  body: string,
): { text: string; parameters: string[] } {
  const parameters: string[] = [];
  const bind = (value: string): string => `$${parameters.push(value)}`;
  const rpc = /^\/rpc\/(\w+)$/.exec(path)?.[1];
  const table = `"public".${quoted(rpc ?? path.slice(1))}`;
  const source = (): string => {
    const where = [...search].filter(([, value]) => value.startsWith("eq."))
      .map(([name, value]) => `${table}.${quoted(name)} = ${bind(value.slice(3))}`).join(" AND ");
    const condition = where === "" ? "" : ` WHERE ${where}`;
    const payload = (): string =>
      `json_populate_recordset(null::${table}, ${
        bind(body.startsWith("[") ? body : `[${body}]`)
      }::text::json)`;
    const names = method === "POST" || method === "PATCH"
      ? Object.keys((([] as object[]).concat(JSON.parse(body || "{}") as object))[0] ?? {}).map(quoted)
      : [];
    switch (rpc === undefined ? method : "RPC") {
      case "POST":
        return `INSERT INTO ${table}(${names.join(", ")}) SELECT ${
          names.map((name) => `"pgrst_body".${name}`).join(", ")
        } FROM ${payload()} "pgrst_body" RETURNING ${table}.*`;
      case "PATCH":
        return `UPDATE ${table} SET ${
          names.map((name) => `${name} = "pgrst_body".${name}`).join(", ")
        } FROM ${payload()} "pgrst_body"${condition} RETURNING ${table}.*`;
      case "DELETE":
        return `DELETE FROM ${table}${condition} RETURNING ${table}.*`;
      case "RPC":
        return `SELECT ${table}(${
          Object.entries(JSON.parse(body || "{}") as Record<string, unknown>).map(([name, value]) =>
            `${quoted(name)} => ${bind(String(value))}`
          ).join(", ")
        }) AS result`;
      default:
        return `SELECT ${table}.* FROM ${table}${condition}`;
    }
  };
  return {
    text:
      `WITH pgrst_source AS (${source()}) SELECT coalesce(json_agg(_postgrest_t), '[]')::text AS body FROM (SELECT * FROM pgrst_source) _postgrest_t`,
    parameters,
  };
}
