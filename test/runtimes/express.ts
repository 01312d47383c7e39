import { currentContext } from "@bemi/core";
import { bemi } from "@bemi/core/express";
import express from "express";
import { deepStrictEqual } from "node:assert/strict";
import type { AddressInfo } from "node:net";
import type { AddTest } from "./add-tests.ts";

/** Where Node's own HTTP server is to be had. */
export function expressTests(test: AddTest): void {
  test("requests to Express are in their own contexts", async () => {
    const app = express();
    app.use(bemi((request) => ({ endpoint: request.path })));
    app.get("/:id", async (_request, response) => {
      await new Promise((done) => setTimeout(done, Math.random() * 5));
      response.json(currentContext());
    });
    const server = app.listen(0, "127.0.0.1");
    await new Promise((done) => server.once("listening", done));
    const { port } = server.address() as AddressInfo;
    const paths = ["/1", "/2", "/3"];
    const answers = await Promise.all(paths.map((path) => fetch(`http://127.0.0.1:${port}${path}`)));
    const contexts = await Promise.all(answers.map((answer) => answer.json()));
    deepStrictEqual(contexts, paths.map((endpoint) => ({ endpoint })));
    server.closeAllConnections();
    await new Promise((done) => server.close(done));
  });
}
