import { createServer, type Server } from "node:http";
import { BemiError } from "../../errors.ts";
import { type Health, health, readiness } from "./health.ts";
import { metrics } from "./metrics.ts";
import type { WorkerState } from "./worker-state.ts";

export interface ListenOptions {
  readonly host: string;
  /** 0 for any that is free. */
  readonly port: number;
  /** Bytes of WAL behind which the worker is not ready. */
  readonly readyLag: number;
  readonly state: () => WorkerState;
  readonly turnedAt: () => number;
}

/** Answers probes and Prometheus until it is disposed of. */
export interface Listener extends AsyncDisposable {
  readonly url: string;
}

/**
 * Serves `/healthz`, `/readyz` and `/metrics`: nothing of it holds row values or where the database is.
 *
 * @throws {BemiError} `usage` where the address cannot be used, `missing_package`
 */
export async function listen(options: ListenOptions): Promise<Listener> {
  const { state, turnedAt, readyLag, host, port } = options;
  const { contentType, text } = await metrics(state, turnedAt);
  const answer = async (path: string): Promise<[status: number, type: string, body: string]> => {
    switch (path) {
      case "/healthz":
        return probe(health(turnedAt()), state());
      case "/readyz":
        return probe(readiness(state(), readyLag), state());
      case "/metrics":
        return [200, contentType, await text()];
      default:
        return [404, "text/plain", "Try /healthz, /readyz or /metrics\n"];
    }
  };
  const server = createServer((request, response) => {
    if (request.method !== "GET" && request.method !== "HEAD") {
      response.writeHead(405, { allow: "GET, HEAD" }).end();
      return;
    }
    // Not as a URL: `//` is none.
    const [path = "/"] = (request.url ?? "/").split("?");
    answer(path).then(([status, type, body]) => {
      response.writeHead(status, { "content-type": type, "cache-control": "no-store" }).end(body);
    }, () => response.writeHead(500).end());
  });
  await opened(server, host, port);
  const address = server.address();
  const bound = typeof address === "object" && address ? address.port : port;
  return {
    url: `http://${host.includes(":") ? `[${host}]` : host}:${bound}`,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise<void>((done) => server.close(() => done()));
    },
  };
}

function probe({ isWell, reason }: Health, { mode }: WorkerState): [number, string, string] {
  const body = JSON.stringify({ status: isWell ? "ok" : "unavailable", mode, reason });
  return [isWell ? 200 : 503, "application/json", `${body}\n`];
}

function opened(server: Server, host: string, port: number): Promise<void> {
  return new Promise((done, fail) => {
    server.once("error", (cause: NodeJS.ErrnoException) =>
      fail(
        new BemiError("usage", `Cannot listen on ${host}:${port} (${cause.code})`, {
          hint: "Choose another address with --listen.",
          cause,
        }),
      ));
    server.listen(port, host, done);
  });
}
