// Writes the migrations under sql/, and doctor's questions, into a module, so that no runtime needs a file system.
// `--check` only says whether the module is fresh.
import { readdir, readFile, writeFile } from "node:fs/promises";
import { Buffer } from "node:buffer";
import process from "node:process";

const root = new URL("../../", import.meta.url);
const target = new URL("src/generated/sql.ts", root);

const sqlFiles = async (folder) =>
  (await readdir(new URL(folder, root))).filter((name) => name.endsWith(".sql")).sort();
const read = async (file) => {
  const sql = await readFile(new URL(file, root), "utf8");
  // A database may have an encoding that lacks the character.
  if (Buffer.byteLength(sql) !== sql.length) throw new Error(`${file}: not all of it is ASCII`);
  return sql;
};

const migrations = [];
for (const file of await sqlFiles("sql/")) {
  const match = /^(\d{6})_([a-z_]+)\.sql$/.exec(file);
  if (!match) throw new Error(`${file}: a migration is called NNNNNN_name.sql`);
  if (Number(match[1]) !== migrations.length + 1) throw new Error(`${file}: the numbers have a gap`);
  migrations.push({ version: Number(match[1]), name: match[2], sql: await read(`sql/${file}`) });
}
// By the head of each function, up to its body.
const heads = migrations.flatMap(({ sql }) => sql.split(/^create function "bemi"\./m).slice(1))
  .map((text) => text.split(/^as \$\$|^return\b/m)[0]);
const definers = heads.filter((head) => head.includes("security definer"))
  .map((head) => `('${/^\w+/.exec(head)[0]}', ${head.includes("set search_path")})`);
const questions = [];
for (const file of await sqlFiles("sql/doctor/")) {
  const sql = await read(`sql/doctor/${file}`);
  questions.push(
    sql.replace("values ('emit_context', false)", `values ${[...new Set(definers)].sort().join(", ")}`),
  );
}

const literal = (text) => "`" + text.replace(/[\\`]|\$\{/g, "\\$&") + "`";
const module = `// Generated from sql/ by \`npm run generate\`. Do not edit.
// deno-fmt-ignore-file
/** One step of the schema. \`"bemi"\` stands for the schema's quoted name. */
export interface Migration {
  readonly version: number;
  readonly name: string;
  readonly sql: string;
}

export const migrations: readonly Migration[] = [
${migrations.map((m) => `  { version: ${m.version}, name: "${m.name}", sql: ${literal(m.sql)} },`).join("\n")}
];

/** What \`bemi doctor\` asks. Each gives rows of severity, name, object, problem and repair. */
export const questions: readonly string[] = [
${questions.map((sql) => `  ${literal(sql)},`).join("\n")}
];
`;

if (process.argv.includes("--check")) {
  const current = await readFile(target, "utf8").catch(() => "");
  if (current !== module) {
    console.error("src/generated/sql.ts is stale: run npm run generate");
    process.exit(1);
  }
} else {
  await writeFile(target, module);
}
