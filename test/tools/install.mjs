// Installs the tools where they are missing: kept out of the package's own install, since the runtimes are large.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import process from "node:process";
import { fileURLToPath } from "node:url";

const folder = fileURLToPath(new URL(".", import.meta.url));

/** Path of a tool's executable. */
export function tool(name) {
  installTools();
  return `${folder}node_modules/.bin/${name}`;
}

/** Two test files that need them at once wait for one another. */
export function installTools() {
  const complete = `${folder}node_modules/.complete`;
  const lock = `${folder}.installing`;
  const wanted = readFileSync(`${folder}package.json`, "utf8");
  const isComplete = () => existsSync(complete) && readFileSync(complete, "utf8") === wanted;
  for (let waited = 0; !isComplete(); waited++) {
    try {
      mkdirSync(lock);
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
      if (waited > 600) throw new Error(`Another install seems dead: remove ${lock}`);
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1000);
      continue;
    }
    try {
      // Not `npm ci`: the lock file leaves out what a registry has for other platforms only.
      run("npm", ["install", "--no-save", "--no-audit", "--no-fund"]);
      // Where install scripts are off, Bun's executable is still missing.
      if (spawnSync(`${folder}node_modules/.bin/bun`, ["--version"]).status !== 0) {
        run(process.execPath, ["node_modules/bun/install.js"]);
      }
      writeFileSync(complete, wanted);
    } finally {
      rmdirSync(lock);
    }
  }
}

function run(command, args) {
  const { status, stdout, stderr } = spawnSync(command, args, { cwd: folder, encoding: "utf8" });
  if (status !== 0) throw new Error(`${command} ${args.join(" ")} failed: ${stdout}${stderr}`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) installTools();
