import { currentContext, withContext } from "@bemi/core";
import { bemi } from "@bemi/core/bun";
import { deepStrictEqual } from "node:assert/strict";
import type { AddTest } from "./add-tests.ts";

export function bunServeTests(test: AddTest): void {
  test("Bun.serve's fetch and routes have their request's context", async () => {
    const answer = async (): Promise<Response> => {
      await new Promise((done) => setTimeout(done, Math.random() * 5));
      return Response.json(currentContext() ?? null);
    };
    const context = (request: Request & { params?: object }) => ({
      user_id: Number(request.headers.get("x-user")),
      params: request.params,
    });
    const server = Bun.serve({
      port: 0,
      routes: bemi({
        "/static": new Response("static"),
        "/one/:id": answer,
        "/by-method": { GET: answer, POST: answer },
      }, context),
      fetch: bemi((request: Request, server: Bun.Server<undefined>) => {
        if (new URL(request.url).pathname !== "/ws") return answer();
        return server.upgrade(request, { data: undefined }) ? undefined : new Response("no");
      }, context),
      websocket: {
        message: (socket, text) =>
          void withContext({ job: text }, () => void socket.send(JSON.stringify(currentContext()))),
      },
    });
    const get = async (path: string, user: number, method = "GET"): Promise<string> => {
      const headers = { "x-user": String(user), "x-request-id": `r${user}` };
      return await (await fetch(new URL(path, server.url), { method, headers })).text();
    };
    const answers = await Promise.all([
      get("/static", 1),
      get("/one/7", 2),
      get("/by-method", 3, "POST"),
      get("/anything", 4),
    ]);
    deepStrictEqual(answers, [
      "static",
      '{"request_id":"r2","user_id":2,"params":{"id":"7"}}',
      '{"request_id":"r3","user_id":3,"params":{}}',
      '{"request_id":"r4","user_id":4}',
    ]);
    const socket = new WebSocket(`ws://localhost:${server.port}/ws`);
    socket.onopen = () => socket.send("import");
    const said = await new Promise((done) => socket.onmessage = (event) => done(event.data));
    deepStrictEqual(said, '{"job":"import"}');
    socket.close();
    await server.stop(true);
  });
}
