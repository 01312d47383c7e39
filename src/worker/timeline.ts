import { Buffer } from "node:buffer";
import { openConnection } from "./connection.ts";
import { type Lsn, parseLsn } from "./decode.ts";

/**
 * Where a timeline left one of its ancestors: up to there both have the same history (PostgreSQL documentation, 26.3.6
 * Timelines). `undefined` where it is no ancestor, or the server does not say.
 */
export async function timelineFork(
  target: string | object,
  timeline: number,
  ancestor: number,
): Promise<Lsn | undefined> {
  const sql = await openConnection(target, { replication: "database" });
  try {
    const [row] = await sql.unsafe(`TIMELINE_HISTORY ${timeline}`) as { content?: unknown }[];
    return forkOf(historyText(row?.content), ancestor);
  } catch {
    // A pooler, or a role that may not replicate: what is not known is a gap.
    return undefined;
  } finally {
    await sql.end({ timeout: 0 });
  }
}

/** The line of an ancestor in a history file: `<timeline> <LSN> <reason>`. */
function forkOf(history: string, ancestor: number): Lsn | undefined {
  for (const line of history.split("\n")) {
    const [number, lsn] = line.trim().split(/\s+/);
    if (number === String(ancestor) && lsn !== undefined && /^[0-9A-F]+\/[0-9A-F]+$/i.test(lsn)) {
      return parseLsn(lsn);
    }
  }
  return undefined;
}

function historyText(content: unknown): string {
  return typeof content === "string" ? content : Buffer.from(content as Uint8Array).toString("utf8");
}
