import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { parse } from "yaml";

const root = fileURLToPath(new URL("../", import.meta.url));

interface Job {
  readonly needs?: string;
  readonly permissions?: Readonly<Record<string, string>>;
  readonly env?: Readonly<Record<string, string>>;
  readonly steps: readonly { readonly run?: string; readonly if?: string }[];
}

const { on, permissions, env, jobs } = parse(
  readFileSync(`${root}.github/workflows/release.yml`, "utf8"),
) as {
  readonly on: object;
  readonly permissions: Readonly<Record<string, string>>;
  readonly env: Readonly<Record<string, string>>;
  readonly jobs: Readonly<Record<"check" | "npm" | "jsr", Job>>;
};
const { version } = JSON.parse(readFileSync(`${root}package.json`, "utf8")) as { version: string };
const commands = (job: Job): string[] => job.steps.flatMap(({ run }) => run ?? []);

// A checkout of its own, since the workflow writes into it.
let checkout: string;
beforeAll(() => {
  checkout = mkdtempSync(join(tmpdir(), "bemi-release-"));
  const left = new Set([".git", ".cache", "node_modules"].map((name) => join(root, name)));
  cpSync(root, checkout, {
    recursive: true,
    filter: (source) => !left.has(source) && !source.includes("/node_modules"),
  });
  for (const modules of ["node_modules", "test/tools/node_modules"]) {
    symlinkSync(join(root, modules), join(checkout, modules));
  }
});
afterAll(() => rmSync(checkout, { recursive: true, force: true }));

function run(command: string, env: Readonly<Record<string, string>> = {}): string {
  const { status, stdout, stderr } = spawnSync("bash", ["-e", "-o", "pipefail", "-c", command], {
    cwd: checkout,
    encoding: "utf8",
    env: { ...process.env, ...env },
  });
  if (status !== 0) throw new Error(`${command} ended with ${status}\n${stdout}${stderr}`);
  return stdout + stderr;
}

test("both registries get what passed the gate, and only their jobs have an identity to show", () => {
  expect(Object.keys(jobs)).toEqual(["check", "npm", "jsr"]);
  expect(on).toEqual({ push: { tags: ["v*"] }, workflow_dispatch: null });
  expect(permissions).toEqual({ contents: "read" });
  expect(jobs.check.permissions).toBeUndefined();
  expect(commands(jobs.check)).toContain("npm run check");
  for (const job of [jobs.npm, jobs.jsr]) {
    expect(job.needs).toBe("check");
    expect(job.permissions).toEqual({ contents: "read", "id-token": "write" });
    expect(commands(job)[0]).toBe("npm ci");
    expect(commands(job).at(-1)).toMatch(/\bpublish\b[^]* \$DRY_RUN\s*$/);
  }
  expect(jobs.npm.env?.NPM_CONFIG_PROVENANCE).toBe("true");
  expect(env.DRY_RUN).toBe("${{ github.event_name == 'workflow_dispatch' && '--dry-run' || '' }}");
});

test("the tag has to be the version", () => {
  const check = commands(jobs.check).find((command) => command.includes("GITHUB_REF_NAME")) ?? "";
  expect(run(check, { GITHUB_REF_NAME: `v${version}` })).toBe("");
  expect(() => run(check, { GITHUB_REF_NAME: "v0.0.0" })).toThrow(/ended with 1/);
});

test("its dry run for npm goes through, of a package that names the repository it comes from", () => {
  for (const command of commands(jobs.npm).slice(1)) {
    const output = run(command, {
      DRY_RUN: "--dry-run --ignore-scripts",
      GITHUB_SERVER_URL: "https://git.example.com",
      GITHUB_REPOSITORY: "example/bemi",
    });
    if (!command.includes("npm publish")) continue;
    expect(output).toContain(
      `with tag ${version.includes("-") ? "next" : "latest"} and public access (dry-run)`,
    );
  }
  const { repository } = JSON.parse(readFileSync(join(checkout, "package.json"), "utf8")) as {
    repository: object;
  };
  expect(repository).toEqual({ type: "git", url: "git+https://git.example.com/example/bemi.git" });
});

test("its dry run for JSR goes through", () => {
  for (const command of commands(jobs.jsr).slice(1)) run(command, { DRY_RUN: "--dry-run --allow-dirty" });
});
