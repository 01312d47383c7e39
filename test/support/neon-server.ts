import { createServer } from "node:http";
import { type AddressInfo, createConnection } from "node:net";
import { neonConfig } from "@neondatabase/serverless";
import pg from "pg";
import { type WebSocket, WebSocketServer } from "ws";

interface HttpQuery {
  readonly query: string;
  readonly params: readonly unknown[];
}

/** What Neon puts in front of a PostgreSQL: SQL over HTTP, and the wire protocol in a WebSocket. */
export interface NeonServer extends AsyncDisposable {
  /** How many requests came over HTTP. */
  readonly requests: () => number;
}

/** Points Neon's driver at a real server of one's own. */
export async function startNeonServer(url: string): Promise<NeonServer> {
  const { hostname, port } = new URL(url);
  let requests = 0;
  const http = createServer(async (request, response) => {
    requests++;
    let body = "";
    for await (const chunk of request) body += String(chunk);
    const asked = JSON.parse(body) as HttpQuery | { queries: HttpQuery[] };
    const isolation = request.headers["neon-batch-isolation-level"]?.toString().replace(
      /([a-z])([A-Z])/g,
      "$1 $2",
    );
    try {
      const results = "queries" in asked
        ? await run(url, asked.queries, `begin${isolation ? ` isolation level ${isolation}` : ""}`)
        : await run(url, [asked]);
      response.end(JSON.stringify("queries" in asked ? { results } : results[0]));
    } catch (error) {
      const { message, code, severity } = error as pg.DatabaseError;
      response.statusCode = 400;
      response.end(JSON.stringify({ message, code, severity }));
    }
  });
  const sockets = new WebSocketServer({ server: http });
  sockets.on("connection", (socket: WebSocket) => {
    const upstream = createConnection(Number(port), hostname);
    socket.on("message", (data: Uint8Array) => upstream.write(data)).on("close", () => upstream.destroy());
    upstream.on("data", (data) => socket.send(data)).on("close", () => socket.close()).on("error", () => {});
  });
  await new Promise<void>((done) => http.listen(0, "127.0.0.1", done));
  const here = `127.0.0.1:${(http.address() as AddressInfo).port}`;
  const { WebSocket: constructor } = await import("ws");
  Object.assign(neonConfig, {
    fetchEndpoint: `http://${here}/sql`,
    wsProxy: here,
    webSocketConstructor: constructor,
    useSecureWebSocket: false,
    pipelineTLS: false,
    pipelineConnect: false,
  });
  return {
    requests: () => requests,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets.clients) socket.terminate();
      http.closeAllConnections();
      await new Promise((done) => http.close(done));
    },
  };
}

async function run(url: string, queries: readonly HttpQuery[], begin?: string): Promise<object[]> {
  const client = new pg.Client(url);
  await client.connect();
  try {
    if (begin) await client.query(begin);
    const results: object[] = [];
    for (const { query, params } of queries) {
      const result = await client.query({
        text: query,
        values: [...params],
        rowMode: "array",
        types: { getTypeParser: () => (value: string) => value } as never,
      });
      const { command, rowCount, rows, fields } = result;
      results.push({ command, rowCount, rows, fields, rowAsArray: true });
    }
    if (begin) await client.query("commit");
    return results;
  } finally {
    await client.end();
  }
}
