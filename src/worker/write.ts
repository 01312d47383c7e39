import { reducedContext } from "./reduced-context.ts";
import { inSchema } from "../install/schema.ts";
import { changeId, changeJson, COLUMNS, copyLine, type Origin } from "./encode.ts";
import { formatLsn, type Lsn, parseLsn } from "./decode.ts";
import { type CopyIn, copyIn, inTransaction, type WorkerSql } from "./sql.ts";
import type { Change } from "./stitch.ts";

/** Puts changes into the log, within one transaction of the destination. */
export interface Writer {
  /** What is at or below it is in the log already. */
  readonly watermark: Lsn;
  readonly endLsn: Lsn;
  write(change: Change): void;
  /** Sends what has come together, where that is much. */
  flush(): Promise<void>;
  readonly written: number;
}

export interface WriteOptions {
  readonly schema: string;
  readonly slot: string;
  readonly publicationOid: bigint;
  readonly origin: Origin;
  /** One by one, so that a change that cannot be stored is set aside and not the others with it. */
  readonly isCareful: boolean;
  /** Milliseconds that a heartbeat took that came back since the last time. */
  readonly heartbeat: number | undefined;
  /** Milliseconds to wait for another worker's transaction. */
  readonly patience: number;
}

/** What is recorded with the rows; `undefined` where nothing is worth a record. */
export interface Progress {
  readonly commitLsn: Lsn;
  readonly endLsn: Lsn;
}

const FLUSH_AT = 256 * 1024;

/** How many changes may wait for a COPY to end before they can be written one by one. */
const CAREFUL_LIMIT = 500;

/**
 * Rows and checkpoint in one transaction, durable when it returns. The checkpoint's row is locked: of two workers one
 * writes, and the other waits a moment, then fails with `55P03`. A worker whose host is gone is noticed by keep-alives.
 */
export async function inWriteTransaction(
  sql: WorkerSql,
  options: WriteOptions,
  fn: (writer: Writer) => Promise<Progress | undefined>,
): Promise<{ written: number; setAside: number }> {
  const { schema, slot, publicationOid, origin, isCareful, heartbeat, patience } = options;
  let counts = { written: 0, setAside: 0 };
  await inTransaction(sql, async (tx) => {
    // Sent as one, answered as one.
    const [, [checkpoint]] = await Promise.all([
      tx.unsafe(
        `select set_config('synchronous_commit', 'on', true), set_config('client_encoding', 'UTF8', true),
        set_config('search_path', 'pg_catalog', true), set_config('statement_timeout', '0', true),
        set_config('idle_in_transaction_session_timeout', '0', true), set_config('DateStyle', 'ISO, MDY', true),
        set_config('tcp_keepalives_idle', '20', true), set_config('tcp_keepalives_interval', '5', true),
        set_config('tcp_keepalives_count', '4', true), set_config('lock_timeout', '${patience}ms', true)`,
      ),
      tx.unsafe(inSchema(
        schema,
        `select commit_lsn::text, end_lsn::text from "bemi".checkpoints where source_id = ${origin.sourceId} for update`,
      )) as Promise<{ commit_lsn: string; end_lsn: string }[]>,
      tx.unsafe("select set_config('lock_timeout', '0', true)"),
    ]);
    const watermark = parseLsn(checkpoint?.commit_lsn ?? "0/0");
    let buffer = "";
    let copy: CopyIn | undefined;
    let written = 0;
    const careful: Change[] = [];
    let setAside = 0;
    let unwritten = 0;
    const flush = async (): Promise<void> => {
      if (buffer.length > 0) {
        copy ??= await copyIn(tx, copyStatement(schema));
        const text = buffer;
        buffer = "";
        await copy.write(text);
      }
    };
    // Nothing else may run while a COPY is open, and what is compared with the log needs it up to its own place.
    const writeCarefully = async (): Promise<void> => {
      await flush();
      await copy?.end();
      copy = undefined;
      for (const change of careful.splice(0)) {
        const outcome = await writeOne(tx, schema, change, origin);
        if (outcome === "set aside") setAside++;
        if (outcome !== "written") unwritten++;
      }
    };
    const writer: Writer = {
      watermark,
      endLsn: parseLsn(checkpoint?.end_lsn ?? "0/0"),
      write: (change) => {
        if (isCareful || change.isUnstorable || change.operation === "RECONCILE") careful.push(change);
        else buffer += copyLine(change, origin);
        written++;
      },
      flush: async () => {
        if (buffer.length >= FLUSH_AT) await flush();
        if (careful.length >= CAREFUL_LIMIT) await writeCarefully();
      },
      get written() {
        return written;
      },
    };
    let progress: Progress | undefined;
    try {
      progress = await fn(writer);
      await writeCarefully();
    } catch (error) {
      copy?.abort();
      throw error;
    }
    counts = { written: written - unwritten, setAside };
    if (!progress) return;
    await tx.unsafe(
      inSchema(
        schema,
        `update "bemi".checkpoints as c set slot = $1, publication = $4::text::bigint,
        commit_lsn = greatest(c.commit_lsn, $2::text::pg_lsn), end_lsn = greatest(c.end_lsn, $3::text::pg_lsn),
        heartbeat_ms = coalesce($5::text::integer, c.heartbeat_ms),
        heartbeat_at = case when $5::text is null then c.heartbeat_at else clock_timestamp() end,
        updated_at = clock_timestamp()
      where source_id = ${origin.sourceId}`,
      ),
      [
        slot,
        formatLsn(progress.commitLsn),
        formatLsn(progress.endLsn),
        String(publicationOid),
        heartbeat === undefined ? null : String(heartbeat),
      ],
    );
  });
  return counts;
}

function copyStatement(schema: string): string {
  return inSchema(
    schema,
    `copy "bemi".changes (${COLUMNS.map((name) => `"${name}"`).join(", ")}) from stdin`,
  );
}

async function writeOne(
  tx: WorkerSql,
  schema: string,
  change: Change,
  origin: Origin,
): Promise<"written" | "set aside" | "no difference"> {
  const given = [changeId(change, origin), changeJson(change, origin)];
  const reduced = reducedContext(change.context);
  const [sql, parameters] = change.operation === "RECONCILE"
    ? [
      'select "bemi".write_difference($1::text::uuid, $2::text, $3::text::jsonb) as sqlstate',
      [...given, change.past ?? null],
    ]
    : [
      `select coalesce("bemi".write_or_set_aside($1::text::uuid, $2::text, false, $3::text), '00000') as sqlstate`,
      [...given, reduced === undefined ? null : changeJson({ ...change, context: reduced }, origin)],
    ];
  const [row] = await tx.unsafe(inSchema(schema, sql), parameters) as { sqlstate: string | null }[];
  if (!row || row.sqlstate === null) return "no difference";
  return row.sqlstate === "00000" ? "written" : "set aside";
}
