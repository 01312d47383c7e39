// The suite under Deno: `deno run -A deno.js URL SCHEMA` prints its results.
import { PGlite } from "@electric-sql/pglite";
import process from "node:process";
import { expressTests } from "./express.ts";
import { run } from "./run.ts";
import { asking } from "./serving.ts";

const [, , url = "", schema = ""] = process.argv;
const results = await run({
  url,
  schema,
  serve: (answer) => {
    const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, answer);
    return Promise.resolve(asking(server.addr.port, () => server.shutdown()));
  },
  pglite: () => PGlite.create(),
  streams: true,
}, expressTests);
console.log(JSON.stringify(results));
