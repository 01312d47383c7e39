import { Buffer } from "node:buffer";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { quoteIdentifier, quoteLiteral } from "../identifiers.ts";
import { openConnection } from "./connection.ts";
import type { Lsn, RawMessage } from "./decode.ts";
import type { SocketWatch } from "./socket-watch.ts";
import { connectionLost } from "./sql.ts";
import { VALUE_SETTINGS } from "./values.ts";

/** What a walsender sends, message by message, as it is committed. */
export interface WalStream extends AsyncDisposable {
  /**
   * What comes next of what has come; waits for something, but not longer than `timeout` milliseconds.
   *
   * @throws what ended the connection
   */
  next(timeout: number): Promise<RawMessage[]>;
  /** Whether something waits to be taken. */
  readonly isWaiting: boolean;
  /** Up to where the server has sent everything, once all that waits is taken. */
  readonly sentLsn: Lsn;
  /** Says that everything before an LSN may go. */
  acknowledge(lsn: Lsn): void;
}

export interface StreamOptions {
  readonly slot: string;
  readonly publication: string;
  /** Milliseconds between two status updates. */
  readonly statusInterval: number;
  /** Ends waiting. */
  readonly signal: AbortSignal;
  readonly sockets?: SocketWatch | undefined;
}

/** Memory that may wait before the socket is paused: status updates go on meanwhile. */
const QUEUE_BYTES = 8 * 1024 * 1024;

/** Memory from which on a batch is large enough: what is made of it for the log is many times its bytes. */
const BATCH_BYTES = 256 * 1024;

/** What a message takes beside its bytes. */
const MESSAGE_BYTES = 300;

interface Batch {
  readonly messages: RawMessage[];
  bytes: number;
}

/**
 * Streams a slot (PostgreSQL documentation, 55.4 Streaming Replication Protocol).
 *
 * @throws what the server says to START_REPLICATION: `55006` where another worker has the slot
 */
export async function openStream(target: string | object, options: StreamOptions): Promise<WalStream> {
  let socket: Socket | undefined;
  const sql = await openConnection(target, { replication: "database", ...VALUE_SETTINGS }, {
    opened: (opened) => {
      socket = opened;
      options.sockets?.opened(opened);
    },
  });
  // A server that has more to send than was read waits for ever, and keeps the slot: half closed is not enough for it.
  const end = async (): Promise<void> => {
    await sql.end({ timeout: 0 });
    socket?.destroySoon();
  };
  try {
    const query = sql.unsafe(
      `START_REPLICATION SLOT ${
        quoteIdentifier(options.slot)
      } LOGICAL 0/0 (proto_version '1', publication_names ${
        quoteLiteral(quoteIdentifier(options.publication))
      }, messages 'true')`,
    ) as { writable(): Promise<Duplex> };
    const duplex = await query.writable();
    return receive(duplex, socket, options, end);
  } catch (error) {
    await end();
    throw error;
  }
}

function receive(
  duplex: Duplex,
  socket: Socket | undefined,
  { statusInterval, signal }: StreamOptions,
  end: () => Promise<void>,
): WalStream {
  const queue: Batch[] = [];
  let queuedBytes = 0;
  let sentLsn = 0n;
  let acknowledged = 0n;
  let heardAt = performance.now();
  let ended: { readonly error: unknown } | undefined;
  let wake: () => void = () => {};
  const fail = (error: unknown): void => {
    ended ??= { error };
    clearInterval(timer);
    wake();
  };
  const sendStatus = (): void => {
    if (!ended) duplex.write(statusUpdate(acknowledged));
  };
  const onTimer = (): void => {
    sendStatus();
    // Each update asks for an answer. A socket that is paused has not gone silent.
    if (duplex.isPaused()) heardAt = performance.now();
    else if (performance.now() - heardAt > 4 * statusInterval) {
      fail(Object.assign(connectionLost(), { code: "ETIMEDOUT" }));
      // Whoever watches the sockets learns of it too: the others have gone silent most likely, with a query under way.
      socket?.destroy();
    }
  };
  // Each copy-data message is one chunk. Its bytes are a view of what came from the socket, which nobody writes to.
  duplex.on("data", (chunk: Buffer) => {
    heardAt = performance.now();
    if (chunk[0] === XLOG_DATA) {
      const lsn = chunk.readBigUInt64BE(1);
      let batch = queue.at(-1);
      if (!batch || batch.bytes >= BATCH_BYTES) queue.push(batch = { messages: [], bytes: 0 });
      batch.messages.push([lsn, chunk.subarray(25)]);
      batch.bytes += MESSAGE_BYTES + chunk.length;
      queuedBytes += MESSAGE_BYTES + chunk.length;
      if (queuedBytes > QUEUE_BYTES) duplex.pause();
    } else if (chunk[0] === KEEPALIVE) {
      sentLsn = chunk.readBigUInt64BE(1);
      if (chunk[17] === 1) sendStatus();
    }
    wake();
  });
  duplex.on("error", fail);
  for (const [emitter, event] of [[duplex, "close"], [duplex, "end"], [socket, "close"]] as const) {
    emitter?.once(event, () => fail(connectionLost()));
  }
  const timer = setInterval(onTimer, statusInterval);
  const onAbort = (): void => wake();
  signal.addEventListener("abort", onAbort);

  return {
    next: async (timeout) => {
      if (queue.length === 0 && !ended) {
        await new Promise<void>((done) => {
          const timer = setTimeout(done, timeout);
          wake = () => {
            clearTimeout(timer);
            done();
          };
        });
      }
      if (ended) throw ended.error;
      const taken = queue.shift();
      queuedBytes -= taken?.bytes ?? 0;
      if (queuedBytes <= QUEUE_BYTES) duplex.resume();
      return taken?.messages ?? [];
    },
    get isWaiting() {
      return queue.length > 0;
    },
    get sentLsn() {
      return sentLsn;
    },
    acknowledge: (lsn) => {
      if (lsn <= acknowledged) return;
      acknowledged = lsn;
      sendStatus();
    },
    [Symbol.asyncDispose]: async () => {
      signal.removeEventListener("abort", onAbort);
      fail(connectionLost());
      await end();
    },
  };
}

const XLOG_DATA = 0x77; // w
const KEEPALIVE = 0x6b; // k
const STATUS_UPDATE = 0x72; // r

/** µs from 1970 to 2000, where PostgreSQL's clock begins. */
const EPOCH = 946_684_800_000_000n;

function statusUpdate(lsn: Lsn): Buffer {
  const message = Buffer.alloc(34);
  message[0] = STATUS_UPDATE;
  for (const at of [1, 9, 17]) message.writeBigUInt64BE(lsn, at);
  message.writeBigInt64BE(BigInt(Date.now()) * 1000n - EPOCH, 25);
  message[33] = 1;
  return message;
}
