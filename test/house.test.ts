import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { VERSION } from "../src/cli/version.ts";
import { FAULTS } from "./differential/fault-list.ts";
import { coreBundleBytes } from "./support/core-bundle.ts";

const root = fileURLToPath(new URL("../", import.meta.url));

const sources = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" })
  .filter((file) => file.endsWith(".ts")).map((file) => `src/${file.replaceAll("\\", "/")}`);

/** Every module that a file imports, and whether for its types alone. */
function imports(file: string): { from: string; typeOnly: boolean }[] {
  const text = readFileSync(join(root, file), "utf8").replace(/\/\*[\s\S]*?\*\//g, "");
  return [...text.matchAll(/^(?:import|export)\s+(type\s)?[^;()]*?from\s+"([^"]+)"|\bimport\("([^"]+)"\)/gm)]
    .map(([, type, from, dynamic]) => ({ from: from ?? dynamic ?? "", typeOnly: type !== undefined }));
}

// What each floor may stand on. Nothing reaches up.
const FLOORS: Readonly<Record<string, readonly string[]>> = {
  "errors.ts": [],
  "identifiers.ts": ["errors.ts"],
  "json-members.ts": [],
  "json-numbers.ts": ["json-members.ts"],
  "similar.ts": [],
  generated: [],
  context: ["errors.ts"],
  database: ["errors.ts", "identifiers.ts"],
  install: ["errors.ts", "identifiers.ts", "similar.ts", "generated", "database"],
  history: [
    "similar.ts",
    "errors.ts",
    "identifiers.ts",
    "json-members.ts",
    "json-numbers.ts",
    "context",
    "database",
    "install",
  ],
  testing: ["errors.ts", "identifiers.ts", "database", "install", "history"],
  adapters: ["errors.ts", "context", "database"],
  middleware: ["errors.ts", "context"],
  "bun.ts": ["adapters", "middleware"],
  worker: ["errors.ts", "identifiers.ts", "json-members.ts", "json-numbers.ts", "database", "install"],
  cli: [
    "errors.ts",
    "identifiers.ts",
    "json-members.ts",
    "json-numbers.ts",
    "similar.ts",
    "context",
    "database",
    "install",
    "history",
    "adapters",
    "middleware",
    "worker",
  ],
};

test("imports run one way, from the command line down to identifiers and errors", () => {
  const wrong: string[] = [];
  for (const file of sources) {
    const floor = file.split("/")[1] ?? "";
    expect(FLOORS, `${file} stands on no floor`).toHaveProperty([floor]);
    for (const { from } of imports(file)) {
      if (!from.startsWith(".")) continue;
      const target = relative(join(root, "src"), resolve(root, dirname(file), from)).split("/")[0] ?? "";
      if (target !== floor && !FLOORS[floor]?.includes(target)) wrong.push(`${file} -> ${from}`);
    }
  }
  expect(wrong).toEqual([]);
});

test("packages appear where they belong: the core needs none, a driver or framework is a type in its own adapter", () => {
  const wrong: string[] = [];
  for (const file of sources) {
    for (const { from, typeOnly } of imports(file)) {
      if (from.startsWith(".") || file.startsWith("src/cli/")) continue;
      const isOwnType = typeOnly && /^src\/(adapters|middleware)\//.test(file) &&
        file.includes(from.split("/").at(-1) ?? "");
      const isWorkers = file.startsWith("src/worker/") && (typeOnly || from === "node:buffer") ||
        file === "src/worker/connection.ts" && from === "postgres" ||
        file === "src/worker/socket.ts" && from === "node:net" ||
        // A target may name the files of its certificates.
        file === "src/worker/tls.ts" && (from === "node:tls" || from === "node:fs/promises");
      if (from !== "node:async_hooks" && !isOwnType && !isWorkers) wrong.push(`${file} -> ${from}`);
    }
  }
  expect(wrong).toEqual([]);
});

test("only the command line touches the process, the console and files", () => {
  const outside = sources.filter((file) => !file.startsWith("src/cli/") && file !== "src/context/warn.ts");
  expect(outside.filter((file) =>
    /\b(?:process\.|console\b|Deno\.|Bun\.)/.test(
      readFileSync(join(root, file), "utf8").replace(/\/\*[\s\S]*?\*\/|\/\/[^\n]*/g, ""),
    )
  )).toEqual([]);
});

test("the two manifests name the same version, subpaths and packages", () => {
  const npm = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
    version: string;
    exports: Record<string, unknown>;
    dependencies: Record<string, string>;
    devDependencies: Record<string, string>;
  };
  const jsr = JSON.parse(readFileSync(join(root, "deno.json"), "utf8")) as {
    version: string;
    exports: Record<string, string>;
    imports: Record<string, string>;
  };
  expect(jsr.version).toBe(npm.version);
  expect(VERSION).toBe(npm.version);
  expect(Object.keys(jsr.exports)).toEqual(
    Object.keys(npm.exports).filter((key) => key !== "./package.json"),
  );
  for (const [name, specifier] of Object.entries(jsr.imports)) {
    expect(specifier).toBe(`npm:${name}@${npm.dependencies[name] ?? npm.devDependencies[name]}`);
  }
});

test("the generated SQL is fresh", () => {
  const { status, stderr } = spawnSync(process.execPath, ["test/build/generate-sql.mjs", "--check"], {
    cwd: root,
    encoding: "utf8",
  });
  expect(stderr).toBe("");
  expect(status).toBe(0);
});

test("the SQL means the same whatever the session's standard_conforming_strings", () => {
  const plain: string[] = [];
  for (const file of readdirSync(join(root, "sql"), { recursive: true, encoding: "utf8" })) {
    if (!file.endsWith(".sql")) continue;
    const tokens = readFileSync(join(root, "sql", file), "utf8")
      .match(/--[^\n]*|\be'(?:[^'\\]|\\[^]|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"/gi) ?? [];
    plain.push(...tokens.filter((token) => token.startsWith("'") && token.includes("\\")));
  }
  expect(plain).toEqual([]);
});

test("a function whose search_path is the caller's qualifies every function, operator and type", () => {
  const loose: string[] = [];
  const names: string[] = [];
  for (const file of readdirSync(join(root, "sql"), { recursive: true, encoding: "utf8" })) {
    if (!file.endsWith(".sql")) continue;
    const text = readFileSync(join(root, "sql", file), "utf8");
    for (const [, name = "", head = "", body = ""] of text.matchAll(FUNCTION)) {
      if (head.includes("set search_path = pg_catalog, pg_temp")) continue;
      names.push(name);
      const unqualified = body.replace(/--[^\n]*/g, "").replace(/'(?:[^']|'')*'/g, "''")
        // What is qualified, then what is grammar.
        .replace(/\boperator\(pg_catalog\.[^\s)]+\)/g, " ").replace(/::pg_catalog\.\w+/g, " ")
        .replace(/(?:\bpg_catalog|"bemi")\.\w+/g, " ").replace(/[(),;]|''|\b\d+\b/g, " ")
        .match(/\S+/g)?.filter((word) => !GRAMMAR.test(word));
      loose.push(...(unqualified ?? []).map((word) => `${name}: ${word}`));
    }
  }
  expect(names).toEqual(["emit_context"]);
  expect(loose).toEqual([]);
});

// A function with a RETURN is resolved when it is made.
const FUNCTION = /create function "bemi"\.(\w+)\(((?:(?!\nreturn |\$\$)[^])*)\$\$([^]*?)\$\$/g;
const GRAMMAR =
  /^(?:begin|end|if|then|else|not|and|or|is|null|true|false|case|when|perform|return|tg_relid|tg_op|session_user)$/;

test("the tarball holds the built package, its SQL and its papers, and nothing else", () => {
  const { stdout } = spawnSync("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], {
    cwd: root,
    encoding: "utf8",
  });
  const [{ files }] = JSON.parse(stdout) as [{ files: { path: string }[] }];
  // The README's blocks may be tried there at this moment.
  const packed = files.map((file) => file.path).filter((path) => !path.startsWith("dist/readme/"));
  const expected = [
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "package.json",
    ...readdirSync(join(root, "sql"), { recursive: true, encoding: "utf8" }).filter((file) =>
      file.endsWith(".sql")
    )
      .map((file) => `sql/${file.replaceAll("\\", "/")}`),
    ...["mod.ts", ...sources].flatMap((file) =>
      [".js", ".d.ts"].map((end) => `dist/${file.replace(/\.ts$/, end)}`)
    ),
  ];
  expect(packed.sort()).toEqual(expected.sort());
});

test("the core entry is under 4 KB, minified and compressed", async () => {
  expect(await coreBundleBytes()).toBeLessThan(4096);
});

test("each of the deliberate faults that the differential suite has to find has its place", () => {
  for (const { what, file, from } of FAULTS) {
    expect(readFileSync(join(root, file), "utf8").includes(from), what).toBe(true);
  }
});
