// The suite under Node: `node node.js URL SCHEMA` prints its results.
import { PGlite } from "@electric-sql/pglite";
import { serve } from "@hono/node-server";
import process from "node:process";
import { expressTests } from "./express.ts";
import { run } from "./run.ts";
import { asking } from "./serving.ts";

const [, , url = "", schema = ""] = process.argv;
const results = await run({
  url,
  schema,
  serve: (answer) =>
    new Promise((done) => {
      const server = serve({ fetch: answer, port: 0, hostname: "127.0.0.1" }, ({ port }) =>
        done(asking(port, async () => {
          if ("closeAllConnections" in server) {
            server.closeAllConnections();
          }
          await new Promise((closed) =>
            server.close(closed)
          );
        })));
    }),
  pglite: () => PGlite.create(),
  streams: true,
}, expressTests);
console.log(JSON.stringify(results));
