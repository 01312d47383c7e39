// The API reference, from the docstrings of every subpath that deno.json names, into .cache/docs.
// TypeScript 7 has no compiler API, which rules TypeDoc out.
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { tool } from "../tools/install.mjs";

const root = fileURLToPath(new URL("../../", import.meta.url));
const { name, exports } = JSON.parse(readFileSync(`${root}deno.json`, "utf8"));
const entries = Object.entries(exports).filter(([subpath]) => subpath !== "./cli").map(([, file]) => file);
const { status } = spawnSync(
  tool("deno"),
  ["doc", "--quiet", "--html", `--name=${name}`, "--output=.cache/docs", ...entries],
  { cwd: root, stdio: "inherit" },
);
process.exit(status ?? 1);
