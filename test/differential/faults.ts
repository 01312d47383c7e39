// npx tsx test/differential/faults.ts [--server 18] [--runs 400] [--only N]
// Puts one deliberate fault at a time into a copy of the sources, and sees in which scenario the differential suite finds it.
import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { type Fault, FAULTS } from "./fault-list.ts";

const { values } = parseArgs({
  options: {
    server: { type: "string", default: "18" },
    runs: { type: "string", default: "400" },
    seed: { type: "string", default: "1" },
    only: { type: "string" },
  },
});
const root = fileURLToPath(new URL("../../", import.meta.url));
const missed: string[] = [];
for (const [n, fault] of FAULTS.entries()) {
  if (values.only !== undefined && n !== Number(values.only)) continue;
  const found = findOf(fault);
  if (found === undefined) missed.push(fault.what);
  console.log(`${n} ${found === undefined ? "MISSED" : `found in scenario ${found}`}  ${fault.what}`);
}
process.exit(missed.length === 0 ? 0 : 1);

/** The first scenario that finds a fault, `undefined` where none does. */
function findOf({ file, from, to }: Fault): number | undefined {
  const folder = mkdtempSync(join(tmpdir(), "bemi-fault-"));
  try {
    for (
      const name of [
        "src",
        "sql",
        "test/differential",
        "test/support",
        "test/build",
        "package.json",
        "tsconfig.json",
      ]
    ) {
      cpSync(join(root, name), join(folder, name), { recursive: true });
    }
    symlinkSync(join(root, "node_modules"), join(folder, "node_modules"));
    const text = readFileSync(join(folder, file), "utf8");
    if (!text.includes(from)) throw new Error(`There is no such text in ${file}: ${from}`);
    writeFileSync(join(folder, file), text.replaceAll(from, () => to));
    run(folder, ["test/build/generate-sql.mjs"]);
    const { server, runs, seed } = values;
    const { status, stdout } = run(folder, [
      "node_modules/tsx/dist/cli.mjs",
      "test/differential/main.ts",
      ...["--server", server, "--runs", runs, "--seed", seed, "--bail", "--shrink-seconds", "0"],
      ...["--state", join(folder, "state.json")],
    ]);
    // A failure to run at all is no find, nor is one without the fault.
    const found = /^FAILED on .*?: (\d+)/m.exec(stdout);
    if (status !== 1 || !found) return undefined;
    const only = ["--server", server, "--seed", seed, "--only", found[1] ?? "", "--shrink-seconds", "0"];
    if (run(root, ["node_modules/tsx/dist/cli.mjs", "test/differential/main.ts", ...only]).status !== 0) {
      throw new Error(`Scenario ${found[1]} fails without a fault`);
    }
    return Number(found[1]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function run(cwd: string, args: readonly string[]): { status: number | null; stdout: string } {
  return spawnSync(process.execPath, args, {
    cwd,
    encoding: "utf8",
    maxBuffer: 1 << 28,
  });
}
