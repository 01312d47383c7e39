// The API reference, from the docstrings of every subpath that deno.json names, into .cache/docs; with --check it
// fails on public symbols that have none. TypeScript 7 has no compiler API, which rules TypeDoc out.
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { tool } from "../tools/install.mjs";

const root = fileURLToPath(new URL("../../", import.meta.url));
const { name, exports } = JSON.parse(readFileSync(`${root}deno.json`, "utf8"));
const entries = Object.keys(exports).filter((subpath) => subpath !== "./cli");

function doc(options, subpaths) {
  const args = ["doc", "--quiet", ...options, ...subpaths.map((subpath) => exports[subpath])];
  const { status } = spawnSync(tool("deno"), args, { cwd: root, stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
}

// Types of Hono's own count as private there, as they come from another package.
if (process.argv.includes("--check")) doc(["--lint"], entries.filter((subpath) => subpath !== "./hono"));
mkdirSync(`${root}.cache`, { recursive: true });
doc(["--html", `--name=${name}`, "--output=.cache/docs"], entries);
