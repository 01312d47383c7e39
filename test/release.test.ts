import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { parse } from "yaml";

const root = fileURLToPath(new URL("../", import.meta.url));

interface Workflow {
  readonly permissions: { readonly "id-token": string };
  readonly jobs: {
    readonly release: {
      readonly env: Record<string, string>;
      readonly steps: readonly { readonly run?: string; readonly if?: string }[];
    };
  };
}

const { permissions, jobs: { release } } = parse(
  readFileSync(`${root}.github/workflows/release.yml`, "utf8"),
) as Workflow;
const commands = release.steps.flatMap(({ run }) => run ?? []);
const publishing = commands.filter((command) => /\bpublish\b/.test(command));

test("a release publishes to both registries with provenance, after the gate", () => {
  expect(permissions["id-token"]).toBe("write");
  expect(release.env.NPM_CONFIG_PROVENANCE).toBe("true");
  expect(publishing).toHaveLength(2);
  expect(commands.indexOf("npm run check")).toBeLessThan(commands.indexOf(publishing[0] ?? ""));
});

test.each([["npm", "--ignore-scripts"], ["JSR", "--allow-dirty"]])(
  "its dry run for %s goes through",
  (name, more) => {
    const command = publishing[name === "npm" ? 0 : 1] ?? "";
    const { status, stdout, stderr } = spawnSync("sh", ["-ec", command], {
      cwd: root,
      encoding: "utf8",
      env: { ...process.env, DRY_RUN: `--dry-run ${more}` },
    });
    expect(status, stdout + stderr).toBe(0);
  },
);

test("the tag has to be the version", () => {
  const check = commands.find((command) => command.includes("GITHUB_REF_NAME")) ?? "";
  const { version } = JSON.parse(readFileSync(`${root}package.json`, "utf8")) as { version: string };
  const statusOf = (tag: string): number | null =>
    spawnSync("sh", ["-c", check], { cwd: root, env: { ...process.env, GITHUB_REF_NAME: tag } }).status;
  expect([statusOf(`v${version}`), statusOf("v0.0.0")]).toEqual([0, 1]);
});
