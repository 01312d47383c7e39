// Writes the migrations under sql/ into a module, so that no runtime needs a file system to install them.
// `--check` only says whether the module is fresh.
import { readdir, readFile, writeFile } from "node:fs/promises";
import { Buffer } from "node:buffer";
import process from "node:process";

const root = new URL("../../", import.meta.url);
const target = new URL("src/generated/sql.ts", root);

const files = (await readdir(new URL("sql/", root))).filter((name) => name.endsWith(".sql")).sort();
const migrations = [];
for (const file of files) {
  const match = /^(\d{6})_([a-z_]+)\.sql$/.exec(file);
  if (!match) throw new Error(`${file}: a migration is called NNNNNN_name.sql`);
  if (Number(match[1]) !== migrations.length + 1) throw new Error(`${file}: the numbers have a gap`);
  const sql = await readFile(new URL(`sql/${file}`, root), "utf8");
  // A database may have an encoding that lacks the character.
  if (Buffer.byteLength(sql) !== sql.length) throw new Error(`${file}: not all of it is ASCII`);
  migrations.push({ version: Number(match[1]), name: match[2], sql });
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
