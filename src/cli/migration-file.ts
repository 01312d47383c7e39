import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { BemiError } from "../errors.ts";
import type { MigrationKind } from "../install/mod.ts";

/**
 * Writes a migration into a tool's folder, under the name that the tool expects, and returns that.
 *
 * @throws {BemiError} `usage` where the folder cannot be written, or is not the tool's
 */
export function writeMigration(
  kind: MigrationKind,
  folder: string,
  text: string,
  now: Date = new Date(),
): string {
  try {
    if (kind === "drizzle") return writeDrizzle(folder, text, now);
    const name = `${stampIn(folder, now)}_bemi`;
    return write(join(folder, kind === "prisma" ? `${name}/migration.sql` : `${name}.sql`), text);
  } catch (error) {
    if (error instanceof BemiError) throw error;
    throw new BemiError("usage", `Cannot write the migration into "${folder}"`, {
      hint: "Name the folder of your migrations with --out.",
      cause: error,
    });
  }
}

/** The time, or what follows the latest migration where that is not before it: this one stands on it. */
function stampIn(folder: string, now: Date): string {
  const stamp = now.toISOString().replace(/\D/g, "").slice(0, 14);
  const names = existsSync(folder) ? readdirSync(folder) : [];
  const latest = names.flatMap((name) => /^\d{14}(?=_)/.exec(name)?.[0] ?? []).sort().at(-1) ?? "";
  return latest < stamp ? stamp : String(Number(latest) + 1);
}

function write(file: string, text: string): string {
  mkdirSync(join(file, ".."), { recursive: true });
  writeFileSync(file, text, { flag: "wx" });
  return file;
}

interface Journal {
  readonly version: string;
  readonly dialect: string;
  readonly entries: readonly { readonly idx: number; readonly when: number }[];
}

// Up to 0.31 drizzle-kit has one folder and a journal, and runs what that lists; from 1.0 on a folder for each.
function writeDrizzle(folder: string, text: string, now: Date): string {
  const hasFolders = existsSync(folder) && readdirSync(folder).some((name) => /^\d{14}_/.test(name));
  if (hasFolders) return write(join(folder, `${stampIn(folder, now)}_bemi/migration.sql`), text);
  const file = join(folder, "meta/_journal.json");
  const journal: Journal = existsSync(file)
    ? JSON.parse(readFileSync(file, "utf8")) as Journal
    : { version: "7", dialect: "postgresql", entries: [] };
  const last = journal.entries.at(-1);
  const idx = (last?.idx ?? -1) + 1;
  const tag = `${String(idx).padStart(4, "0")}_bemi`;
  const written = write(join(folder, `${tag}.sql`), text);
  const entry = {
    idx,
    version: journal.version,
    when: Math.max(now.getTime(), (last?.when ?? 0) + 1),
    tag,
    breakpoints: true,
  };
  mkdirSync(join(folder, "meta"), { recursive: true });
  writeFileSync(file, `${JSON.stringify({ ...journal, entries: [...journal.entries, entry] }, null, 2)}\n`);
  return written;
}
