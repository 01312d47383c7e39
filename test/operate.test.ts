import { parser } from "@prometheus-io/lezer-promql";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test, vi } from "vitest";
import { parse } from "yaml";
import { METRICS } from "../src/cli/listen/metrics.ts";
import { MODES } from "../src/cli/listen/worker-state.ts";
import { alertRules } from "../src/cli/operate/alerts.ts";
import { databaseVariables } from "./support/cli-worker.ts";
import { onEachServer } from "./support/databases.ts";
import { createSlot, install, SCHEMA, track } from "./support/installation.ts";
import { freePort } from "./support/servers.ts";
import { seen } from "./support/todos.ts";

const root = fileURLToPath(new URL("../", import.meta.url));

function bemi(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, ["dist/src/cli/bin.js", ...args], {
    cwd: root,
    encoding: "utf8",
  });
  return { status, stdout, stderr };
}

interface Rule {
  readonly alert: string;
  readonly expr: string;
  readonly for?: string;
  readonly labels: { readonly severity: string };
  readonly annotations: { readonly summary: string; readonly description?: string };
}

test("the alert rules are PromQL about metrics and labels that the worker has", () => {
  const { status, stdout, stderr } = bemi("generate", "alerts");
  expect([status, stderr, stdout]).toEqual([0, "", alertRules()]);
  const { groups } = parse(stdout) as { groups: { name: string; rules: Rule[] }[] };
  const rules = groups.flatMap(({ rules }) => rules);
  expect(new Set(rules.map(({ alert }) => alert)).size).toBe(11);
  for (const rule of rules) {
    expect(
      Object.keys(rule).filter((key) => !["alert", "expr", "for", "labels", "annotations"].includes(key)),
    )
      .toEqual([]);
    expect(rule.alert).toMatch(/^Bemi[A-Z]\w+$/);
    expect(rule.for ?? "1m").toMatch(/^\d+m$/);
    expect(["warning", "critical"]).toContain(rule.labels.severity);
    expect(rule.annotations.summary).toBeTruthy();
    const metrics: string[] = [];
    const matched: string[] = [];
    parser.parse(rule.expr).iterate({
      enter: (node) => {
        const text = rule.expr.slice(node.from, node.to);
        expect(node.type.isError, `${rule.expr} at ${node.from}`).toBe(false);
        if (node.name === "VectorSelector") metrics.push(/^\w+/.exec(text)?.[0] ?? text);
        if (node.name === "UnquotedLabelMatcher") matched.push(text);
      },
    });
    expect(metrics.length, rule.expr).toBeGreaterThan(0);
    for (const metric of metrics) expect(METRICS).toContain(metric);
    for (const matcher of matched) {
      const [, label, values = ""] = /^(\w+)=~"([\w|]+)"$/.exec(matcher) ?? [];
      const known = label === "mode" ? [...MODES] : ["reserved", "extended", "unreserved", "lost"];
      expect(["mode", "status"]).toContain(label);
      for (const value of values.split("|")) expect(known).toContain(value);
    }
  }
  // What the grammar does not know is noticed.
  let errors = 0;
  parser.parse("max by (").iterate({ enter: ({ type }) => void (errors += Number(type.isError)) });
  expect(errors).toBeGreaterThan(0);
});

test("the unit of systemd's starts the worker as it was told to, and nothing slips into it", () => {
  const { status, stdout } = bemi(
    "generate",
    "systemd",
    "--command",
    "/opt/bemi/bemi-poll",
    "--listen",
    "9200",
  );
  expect(status).toBe(0);
  const settings = [...stdout.matchAll(/^(\w+)=(.*)$/gm)].map(([, key, value]) => `${key}=${value}`);
  expect(settings).toEqual(expect.arrayContaining([
    "ExecStart=/opt/bemi/bemi-poll --listen 127.0.0.1:9200",
    "EnvironmentFile=/etc/bemi/worker.env",
    "Restart=on-failure",
    "DynamicUser=yes",
  ]));
  expect(bemi("generate", "systemd", "--command", "/bin/x\nExecStartPre=/bin/evil")).toMatchObject({
    status: 2,
  });
  expect(bemi("generate", "systemd", "--command", "bemi-poll")).toMatchObject({ status: 2 });
  expect(bemi("generate", "dockerfile", "--package", "x && evil")).toMatchObject({ status: 2 });
});

const hasSystemd = spawnSync("systemd-analyze", ["--version"]).status === 0;

test.runIf(hasSystemd)("systemd finds nothing wrong with the unit", () => {
  const folder = mkdtempSync(join(tmpdir(), "bemi-unit-"));
  try {
    const file = join(folder, "bemi-worker.service");
    writeFileSync(file, bemi("generate", "systemd", "--command", process.execPath).stdout);
    const { status, stdout, stderr } = spawnSync("systemd-analyze", ["verify", file], { encoding: "utf8" });
    // Units of the machine's own that it comes by are none of ours.
    expect(`${stdout}${stderr}`).not.toContain("bemi-worker");
    expect(status).toBe(0);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

/** The instructions of a Dockerfile, comments left out. */
function instructions(text: string): [name: string, rest: string][] {
  return text.split("\n").filter((line) => line !== "" && !line.startsWith("#")).map((line) => {
    const [, name = "", rest = ""] = /^([A-Z]+) (.+)$/.exec(line) ?? [];
    return [name, rest];
  });
}

onEachServer("the Dockerfile", (open) => {
  test("makes a worker of the package as it is published, which works by Bemi's own variables", async () => {
    await using database = await open();
    await install(database.db);
    await createSlot(database.db);
    await database.port.execute("create table todos (id int primary key, task text)");
    await track(database.db, "todos", { capture: "wal" });
    await database.port.execute("insert into todos values (1, 'Sleep')");

    const folder = mkdtempSync(join(tmpdir(), "bemi-image-"));
    try {
      const packed = spawnSync("npm", ["pack", "--ignore-scripts", "--json", "--pack-destination", folder], {
        cwd: root,
        encoding: "utf8",
      });
      const [{ filename }] = JSON.parse(packed.stdout) as [{ filename: string }];
      const port = await freePort();
      const text = bemi("generate", "dockerfile", "--package", filename, "--port", String(port)).stdout;
      const work = join(folder, "work");
      mkdirSync(work);
      const env: Record<string, string> = {
        PATH: process.env.PATH ?? "",
        HOME: folder,
        npm_config_prefer_offline: "true",
        npm_config_cache: join(process.env.HOME ?? folder, ".npm"),
      };
      let entrypoint: string[] = [];
      let command: string[] = [];
      let probe: string[] = [];
      for (const [name, rest] of instructions(text)) {
        switch (name) {
          case "FROM":
            expect(rest).toMatch(/^node:\d+-slim$/);
            break;
          case "ENV": {
            const [key = "", value = ""] = rest.split("=");
            env[key] = value;
            break;
          }
          case "WORKDIR":
            expect(rest).toMatch(/^\/\w+$/);
            break;
          case "COPY": {
            const [from = "", to = ""] = rest.split(" ");
            copyFileSync(join(folder, from), join(work, to, from));
            break;
          }
          case "RUN": {
            const ran = spawnSync("sh", ["-c", rest], { cwd: work, env, encoding: "utf8" });
            expect(ran.status, ran.stderr).toBe(0);
            break;
          }
          case "HEALTHCHECK":
            probe = JSON.parse(rest.slice(rest.indexOf("["))) as string[];
            break;
          case "ENTRYPOINT":
            entrypoint = JSON.parse(rest) as string[];
            break;
          case "CMD":
            command = JSON.parse(rest) as string[];
            break;
          default:
            expect(["USER", "EXPOSE", "STOPSIGNAL"]).toContain(name);
        }
      }
      const [executable = "", ...args] = [...entrypoint, ...command];
      const worker = spawn(join(work, executable), [...args, "--schema", SCHEMA], {
        cwd: work,
        env: { ...env, ...databaseVariables(database.url) },
        stdio: ["ignore", "ignore", "pipe"],
      });
      const exit = once(worker, "exit");
      let log = "";
      worker.stderr?.on("data", (chunk: Uint8Array) => log += chunk.toString());
      try {
        await vi.waitFor(async () => expect(await seen(database.port), log).toHaveLength(1), {
          timeout: 30_000,
          interval: 200,
        });
        const [node = "", ...probeArgs] = probe;
        expect(spawnSync(node, probeArgs, { env }).status).toBe(0);
        worker.kill("SIGTERM");
        expect(await exit).toEqual([0, null]);
        expect(spawnSync(node, probeArgs, { env }).status).toBe(1);
      } finally {
        worker.kill("SIGKILL");
      }
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

test("the image that is published installs the package by its name", () => {
  const { stdout } = bemi("generate", "dockerfile", "--package", "@bemi/core@0.1.0");
  expect(stdout).not.toContain("COPY");
  expect(stdout).toContain("RUN npm install --omit=dev --no-audit --no-fund @bemi/core@0.1.0\n");
});
