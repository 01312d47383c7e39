import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Database } from "../../src/database/port.ts";
import type { NpmPackages } from "./npm-packages.ts";

/** The triggers that `bemi migration:create` of `@bemi-db/prisma` writes into a migration. */
export function formerTriggers({ require }: NpmPackages): string {
  const folder = mkdtempSync(join(tmpdir(), "bemi-former-"));
  try {
    const migrations = join(folder, "prisma/migrations");
    mkdirSync(migrations, { recursive: true });
    const cli = require.resolve("@bemi-db/prisma").replace(/index\.js$/, "cli.js");
    const { stderr } = spawnSync(process.execPath, [cli, "migration:create"], {
      cwd: folder,
      encoding: "utf8",
    });
    const [name] = readdirSync(migrations);
    if (!name) throw new Error(`No migration was made: ${stderr}`);
    return readFileSync(join(migrations, name, "migration.sql"), "utf8");
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** What Bemi's own worker needs and makes: its table, a publication of all tables, a slot that this process can read. */
export const FORMER_WORKER = `
  create table changes (
    id uuid primary key default gen_random_uuid(), created_at timestamptz not null, primary_key varchar(255),
    before jsonb not null default '{}', after jsonb not null default '{}', context jsonb not null default '{}',
    database varchar(255) not null, schema varchar(255) not null, "table" varchar(255) not null,
    operation text not null check (operation in ('CREATE', 'UPDATE', 'DELETE', 'TRUNCATE', 'MESSAGE')),
    committed_at timestamptz not null, queued_at timestamptz not null, transaction_id bigint not null, position bigint not null,
    unique (position, "table", schema, database, operation));
  create index on changes using gin (context jsonb_path_ops);
  create publication dbz_publication for all tables;`;

const OPERATIONS: Readonly<Record<string, string>> = { INSERT: "CREATE", UPDATE: "UPDATE", DELETE: "DELETE" };

/**
 * Records, as Bemi's worker does, what its slot `bemi_local` holds of the schema public: of rows that have columns of
 * integers and text without quotes. Like that worker it fails at a message of its prefix that is no JSON.
 */
export async function formerWorker(db: Database): Promise<void> {
  const lines = await db.query<{ position: string; xid: string; data: string }>(
    `select (lsn - '0/0')::text as position, xid::text, data
    from pg_logical_slot_get_changes('bemi_local', null, null, 'include-timestamp', 'on')`,
  );
  let rows: [
    position: string,
    operation: string,
    table: string,
    before: object,
    after: object,
    context: object,
  ][] = [];
  let context: object = {};
  for (const { position, xid, data } of lines) {
    const message = /^message: .*prefix: _bemi, sz: \d+ content:([^]*)$/.exec(data)?.[1];
    const [, table, operation = "", image = ""] = /^table public\.(\w+): (\w+): (.*)$/.exec(data) ?? [];
    const [, at] = /^COMMIT \d+ \(at (.*)\)$/.exec(data) ?? [];
    if (message !== undefined) context = JSON.parse(message) as object;
    else if (table !== undefined && table !== "changes") {
      const [old = "", now = ""] = image.includes("old-key:") ? image.split("new-tuple:") : ["", image];
      const images = operation === "DELETE"
        ? [columns(image), {}] as const
        : [columns(old), columns(now)] as const;
      rows.push([position, OPERATIONS[operation] ?? operation, table, ...images, context]);
      context = {};
    } else if (at !== undefined) {
      for (const [lsn, kind, name, before, after, what] of rows) {
        await db.query(
          `insert into public.changes (created_at, primary_key, before, after, context, database, schema, "table", operation,
            committed_at, queued_at, transaction_id, position)
          values (now(), $1, $2::text::jsonb, $3::text::jsonb, $4::text::jsonb, current_database(), 'public', $5, $6,
            date_trunc('milliseconds', $7::text::timestamptz), now(), $8::text::bigint, $9::text::bigint)`,
          [
            String(((kind === "DELETE" ? before : after) as { id?: number }).id ?? "") || null,
            JSON.stringify(before),
            JSON.stringify(after),
            JSON.stringify(what),
            name,
            kind,
            at,
            xid,
            lsn,
          ],
        );
      }
      rows = [];
    }
  }
}

function columns(image: string): Record<string, unknown> {
  return Object.fromEntries(
    [...image.matchAll(/"?(\w+)"?\[[^\]]+\]:(?:'([^']*)'|(\S+))/g)]
      .map(([, name = "", text, bare]) => [name, text ?? (bare === "null" ? null : Number(bare))]),
  );
}
