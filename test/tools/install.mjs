// Installs the tools where they are missing: kept out of the package's own install, since the runtimes are large.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import process from "node:process";
import { fileURLToPath } from "node:url";

const folder = fileURLToPath(new URL(".", import.meta.url));

/** Path of a tool's executable. */
export function tool(name) {
  installTools();
  return `${folder}node_modules/.bin/${name}`;
}

export function installTools() {
  if (existsSync(`${folder}node_modules/.complete`)) return;
  run("npm", ["ci", "--no-audit", "--no-fund"]);
  // Where install scripts are off, Bun's executable is still missing.
  if (spawnSync(`${folder}node_modules/.bin/bun`, ["--version"]).status !== 0) {
    run(process.execPath, ["node_modules/bun/install.js"]);
  }
  run(process.execPath, ["-e", "require('fs').writeFileSync('node_modules/.complete', '')"]);
}

function run(command, args) {
  const { status, stdout, stderr } = spawnSync(command, args, { cwd: folder, encoding: "utf8" });
  if (status !== 0) throw new Error(`${command} ${args.join(" ")} failed: ${stdout}${stderr}`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) installTools();
