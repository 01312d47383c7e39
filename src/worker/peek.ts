import { Buffer } from "node:buffer";
import { BemiError } from "../errors.ts";
import { quoteLiteral } from "../identifiers.ts";
import { formatLsn, type Lsn, parseLsn, type RawMessage } from "./decode.ts";
import { copyOut, inTransaction, type WorkerSql } from "./sql.ts";
import { VALUE_SETTINGS } from "./values.ts";
import { isWorkerd } from "./workerd.ts";

export interface PeekOptions {
  readonly slot: string;
  readonly publication: string;
  /** Decoding ends behind the first transaction that ends past it. */
  readonly upTo: Lsn;
  /** Decoding ends behind the transaction in which so many messages are reached. */
  readonly limit: number;
}

/**
 * What the slot holds, without consuming it: one statement, its result streamed as binary COPY, so that memory is
 * bounded here, and on the server by what it spills (PostgreSQL documentation, 9.28.6 Replication Management Functions).
 */
export async function* peek(sql: WorkerSql, options: PeekOptions): AsyncGenerator<RawMessage[]> {
  const batches = pass<RawMessage[]>();
  const finished = inTransaction(sql, async (tx) => {
    const settings = Object.entries({
      ...VALUE_SETTINGS,
      statement_timeout: "0",
      idle_in_transaction_session_timeout: "0",
    });
    await tx.unsafe(
      `select ${settings.map(([name, value]) => `set_config('${name}', '${value}', true)`).join(", ")}`,
    );
    const rows = isWorkerd ? byCursor(tx, options) : byCopy(tx, options);
    for await (const batch of rows) await batches.put(batch);
  }).then(() => batches.close(), (error: unknown) => batches.fail(error));
  try {
    yield* batches;
  } finally {
    batches.close();
    await finished;
  }
}

async function* byCopy(tx: WorkerSql, options: PeekOptions): AsyncGenerator<RawMessage[]> {
  const parser = binaryCopy();
  for await (const chunk of copyOut(tx, `copy (${statement(options)}) to stdout (format binary)`)) {
    yield parser(chunk);
  }
}

// The driver cannot pause its socket on workerd, which a COPY needs. A cursor does: only a query with a parameter has one.
async function* byCursor(tx: WorkerSql, options: PeekOptions): AsyncGenerator<RawMessage[]> {
  const query = tx.unsafe(statement(options, "$1::text::integer"), [String(options.limit)]) as {
    cursor(rows: number): AsyncIterable<readonly { lsn: string; data: Uint8Array }[]>;
  };
  for await (const rows of query.cursor(1000)) {
    yield rows.map((
      { lsn, data },
    ) => [parseLsn(lsn), Buffer.from(data.buffer, data.byteOffset, data.length)]);
  }
}

function statement({ slot, publication, upTo, limit }: PeekOptions, limited = String(limit)): string {
  return `select lsn, data from pg_catalog.pg_logical_slot_peek_binary_changes(${quoteLiteral(slot)}, '${
    formatLsn(upTo)
  }', ${limited}, 'proto_version', '1', 'publication_names', ${
    quoteLiteral(publication)
  }, 'messages', 'true')`;
}

const SIGNATURE_LENGTH = 11;

/** Splits COPY's binary format into its rows, across chunks (PostgreSQL documentation, COPY, Binary Format). */
export function binaryCopy(): (chunk: Uint8Array) => RawMessage[] {
  let rest: Buffer = Buffer.alloc(0);
  let isHeaderRead = false;
  return (chunk) => {
    const bytes = rest.length === 0
      ? Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength)
      : Buffer.concat([rest, chunk]);
    let at = 0;
    const rows: RawMessage[] = [];
    if (!isHeaderRead) {
      const header = SIGNATURE_LENGTH + 8;
      if (bytes.length < header) {
        rest = Buffer.from(bytes);
        return rows;
      }
      at = header + bytes.readUInt32BE(SIGNATURE_LENGTH + 4);
      isHeaderRead = true;
    }
    // A row: two fields, each with its length in front: an LSN of 8 bytes, then the message.
    while (at + 2 <= bytes.length) {
      const fields = bytes.readInt16BE(at);
      if (fields === -1) {
        at += 2;
        break;
      }
      if (fields !== 2) throw new BemiError("decode_failed", "The slot's messages came in an unknown form");
      if (at + 18 > bytes.length) break;
      const length = bytes.readInt32BE(at + 14);
      if (at + 18 + length > bytes.length) break;
      rows.push([bytes.readBigUInt64BE(at + 6), bytes.subarray(at + 18, at + 18 + length)]);
      at += 18 + length;
    }
    // A copy, since the driver's chunk is a view of a larger buffer that would be kept alive.
    rest = at < bytes.length ? Buffer.from(bytes.subarray(at)) : Buffer.alloc(0);
    return rows;
  };
}

/** Hands batches from one task to another, one at a time: who puts waits until it was taken. */
function pass<T>(): AsyncIterable<T> & {
  put(value: T): Promise<void>;
  close(): void;
  fail(error: unknown): void;
} {
  let value: { readonly item: T } | undefined;
  let ended: { readonly error?: unknown } | undefined;
  let wake: () => void = () => {};
  let taken: () => void = () => {};
  const signal = (): void => {
    wake();
    taken();
  };
  return {
    put: async (item) => {
      if (ended) throw new BemiError("decode_failed", "Reading was given up");
      value = { item };
      wake();
      await new Promise<void>((done) => taken = done);
    },
    close: () => {
      ended ??= {};
      signal();
    },
    fail: (error) => {
      ended ??= { error };
      signal();
    },
    async *[Symbol.asyncIterator]() {
      for (;;) {
        if (value) {
          const { item } = value;
          value = undefined;
          yield item;
          taken();
        } else if (ended) {
          if ("error" in ended) throw ended.error;
          return;
        } else await new Promise<void>((done) => wake = done);
      }
    },
  };
}
