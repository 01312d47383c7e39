import { spawnSync } from "node:child_process";
import { chownSync, mkdtempSync, rmdirSync, statfsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type postgres from "postgres";
import { unprivileged } from "../support/servers.ts";

/** A disk of its own for the log, which can be full. */
export interface Quota extends Disposable {
  /** From now on it takes no page more than it has. */
  fill(): void;
  free(): void;
}

/** Mounts one; `undefined` where that is not allowed, as it takes root. */
export function openQuota(): { quota: Quota; folder: string } | undefined {
  const folder = mkdtempSync(join(tmpdir(), "bemi-chaos-disk-"));
  const mount = (...args: string[]): boolean => spawnSync("mount", [...args, folder]).status === 0;
  if (!mount("-t", "tmpfs", "-o", "size=8g", "tmpfs")) {
    rmdirSync(folder);
    return undefined;
  }
  const user = unprivileged();
  if (user) chownSync(folder, user.uid, user.gid);
  const resize = (size: string | number): boolean => mount("-o", `remount,size=${size}`);
  const quota: Quota = {
    fill: () => {
      // It cannot be made smaller than what it holds, and what it holds may grow meanwhile.
      for (let spare = 0; spare < 64; spare++) {
        const { blocks, bfree, bsize } = statfsSync(folder);
        if (resize((blocks - bfree + spare) * bsize)) return;
      }
      throw new Error("The disk cannot be made smaller");
    },
    free: () => void resize("8g"),
    [Symbol.dispose]: () => {
      spawnSync("umount", ["-l", folder]);
      rmdirSync(folder);
    },
  };
  return { quota, folder };
}

/** Moves the log, with its indexes, onto a disk. */
export async function moveLog(sql: postgres.Sql, folder: string): Promise<void> {
  await sql.unsafe(`create tablespace log location '${folder}'`);
  await sql.unsafe(`do $$
    declare
      one record;
    begin
      for one in
        select c.oid::regclass as name, c.relkind in ('i', 'I') as is_index
        from pg_class c
        where c.oid in (select relid from pg_partition_tree('bemi.changes')
          union all select indexrelid from pg_index where indrelid in (select relid from pg_partition_tree('bemi.changes')))
      loop
        execute format('alter %s %s set tablespace log', case when one.is_index then 'index' else 'table' end, one.name);
      end loop;
    end $$`);
}
