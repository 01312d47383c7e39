// Runs a tool of this folder from the top of the checkout: `node test/tools/run.mjs deno fmt`.
import { spawnSync } from "node:child_process";
import process from "node:process";
import { tool } from "./install.mjs";

const [name, ...args] = process.argv.slice(2);
process.exit(spawnSync(tool(name), args, { stdio: "inherit" }).status ?? 1);
