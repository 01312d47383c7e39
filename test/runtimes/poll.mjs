// For Node, Deno and Bun: one call of poll(), as a schedule makes it.
import process from "node:process";
import { poll } from "../../dist/src/worker/mod.js";

const [, , source, schema] = process.argv;
console.log(JSON.stringify(await poll({ source, schema, signal: AbortSignal.timeout(30_000) })));
