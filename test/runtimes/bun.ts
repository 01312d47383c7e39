// The suite under Bun: `bun bun.js URL SCHEMA` prints its results.
import { PGlite } from "@electric-sql/pglite";
import process from "node:process";
import { bunServeTests } from "./bun-serve.ts";
import { expressTests } from "./express.ts";
import { run } from "./run.ts";
import { asking } from "./serving.ts";

const [, , url = "", schema = ""] = process.argv;
const results = await run({
  url,
  schema,
  serve: (answer) => {
    const server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: answer });
    return Promise.resolve(asking(server.port ?? 0, () => server.stop(true)));
  },
  pglite: () => PGlite.create(),
  streams: true,
}, (test) => {
  expressTests(test);
  bunServeTests(test);
});
console.log(JSON.stringify(results));
