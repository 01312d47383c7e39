// The one gate: format, lint, types, generated SQL fresh, tests, packaging dry runs. Stops at the first failure.
import { spawnSync } from "node:child_process";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { tool } from "../tools/install.mjs";

const root = fileURLToPath(new URL("../../", import.meta.url));
const deno = tool("deno");

const steps = [
  ["format", deno, ["fmt", "--check"]],
  ["lint", deno, ["lint"]],
  ["types", "npx", ["tsc", "-p", "."]],
  ["generated SQL", process.execPath, ["test/build/generate-sql.mjs", "--check"]],
  ["build", "npm", ["run", "--silent", "build"]],
  // For a caller that has just run them.
  ...(process.env.CHECK_SKIP_TESTS ? [] : [["tests", "npm", ["test"]]]),
  ["publint", tool("publint"), ["--strict"]],
  ["attw", tool("attw"), ["--pack", ".", "--profile", "esm-only"]],
  ["API reference", process.execPath, ["test/build/docs.mjs", "--check"]],
  ["JSR dry run", deno, ["publish", "--dry-run", "--allow-dirty"]],
];

for (const [name, command, args] of steps) {
  console.log(`\n== ${name}`);
  const { status } = spawnSync(command, args, { cwd: root, stdio: "inherit" });
  if (status !== 0) {
    console.error(`\n${name} failed: ${[command.replace(root, ""), ...args].join(" ")}`);
    process.exit(1);
  }
}
console.log("\nAll checks passed");
