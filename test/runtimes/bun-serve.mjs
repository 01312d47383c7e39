// Run by Bun: requests to a real Bun.serve, each answered with the context in force.
import { currentContext, withContext } from "../../dist/mod.js";
import { bemi } from "../../dist/src/bun.js";

const pause = () => new Promise((done) => setTimeout(done, Math.random() * 5));
const answer = async () => {
  await pause();
  return Response.json(currentContext() ?? null);
};
const context = (request) => ({ user_id: Number(request.headers.get("x-user")), params: request.params });

const server = Bun.serve({
  port: 0,
  routes: bemi({
    "/static": new Response("static"),
    "/one/:id": answer,
    "/by-method": { GET: answer, POST: answer },
  }, context),
  fetch: bemi((request, server) => {
    if (new URL(request.url).pathname === "/ws") {
      return server.upgrade(request) ? undefined : new Response("no");
    }
    return answer();
  }, context),
  websocket: {
    message: (socket, text) =>
      withContext({ job: text }, () => void socket.send(JSON.stringify(currentContext()))),
  },
});

const get = async (path, user, method = "GET") => {
  const headers = { "x-user": String(user), "x-request-id": `r${user}` };
  return await (await fetch(new URL(path, server.url), { method, headers })).text();
};
const results = await Promise.all([
  get("/static", 1),
  get("/one/7", 2),
  get("/by-method", 3, "POST"),
  get("/anything", 4),
]);
const socket = new WebSocket(`ws://localhost:${server.port}/ws`);
socket.onopen = () => socket.send("import");
results.push(await new Promise((done) => socket.onmessage = (event) => done(event.data)));
socket.close();
await server.stop(true);
console.log(results.join("\n"));
