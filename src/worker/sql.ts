import type { Readable, Writable } from "node:stream";

/** What the worker uses of postgres.js: plain statements, transactions, COPY both ways. Nothing is prepared, for poolers. */
export interface WorkerSql {
  // deno-lint-ignore no-explicit-any -- the driver's row types are its own
  unsafe(text: string, parameters?: any[]): any;
  // deno-lint-ignore no-explicit-any
  begin(fn: (tx: any) => Promise<unknown>): Promise<unknown>;
  end(options?: { timeout?: number }): Promise<void>;
}

const CONNECTION_LOST = /^(?:CONNECTION_|ECONN|EPIPE|57P0|08)/;

const watched: WeakMap<object, () => boolean> = new WeakMap();

export function connectionLost(message = "The connection is lost"): Error & { code: string } {
  return Object.assign(new Error(message), { code: "CONNECTION_CLOSED" });
}

/**
 * Has nothing sent on a connection that is gone, and its end not waited for. postgres.js 3.4.9 takes what is sent between
 * a socket's error and its end, and never answers it; and it holds what was under way for unanswered still.
 */
export function guarded<Sql extends WorkerSql>(sql: Sql, isGone: () => boolean): Sql {
  const proxy = new Proxy(sql, {
    get: (target, name) => {
      const value = Reflect.get(target, name) as unknown;
      if (name === "end") return (options: object) => target.end(isGone() ? { timeout: 0 } : options);
      if (name !== "unsafe" && name !== "begin") return value;
      return (...args: readonly unknown[]): unknown => {
        if (isGone()) throw connectionLost();
        return Reflect.apply(value as () => unknown, target, args);
      };
    },
  });
  watched.set(proxy, isGone);
  return proxy;
}

/**
 * `sql.begin`, where postgres.js 3.4.9 sends ROLLBACK too on a connection that is gone, and with that ends the process.
 * Here a lost connection gets a moment to be noticed, and then nothing more is sent on it, also not by an `fn` that has
 * not heard of it yet.
 */
export async function inTransaction<R>(sql: WorkerSql, fn: (tx: WorkerSql) => Promise<R>): Promise<R> {
  let isOver = false;
  const isGone = (): boolean => isOver || (watched.get(sql)?.() ?? false);
  const running = sql.begin(async (tx: WorkerSql) => {
    try {
      return await fn(guarded(tx, isGone));
    } catch (error) {
      if (CONNECTION_LOST.test(String((error as { code?: unknown } | null)?.code))) {
        await new Promise((done) => setTimeout(done, 1000));
      }
      throw error;
    } finally {
      // Neither COMMIT nor ROLLBACK: `running` ends by the loss itself.
      if (isGone()) await new Promise(() => {});
    }
  });
  try {
    return await running as R;
  } finally {
    isOver = true;
  }
}

interface CopyQuery {
  readable(): Promise<Readable>;
  writable(): Promise<Writable>;
  resolve: (value: unknown) => void;
  reject: (error: unknown) => void;
}

/** The rows of a COPY … TO STDOUT, as they come; leaving early reads the rest, since the connection waits for that. */
export async function* copyOut(tx: Pick<WorkerSql, "unsafe">, statement: string): AsyncGenerator<Uint8Array> {
  const query = tx.unsafe(statement) as CopyQuery;
  const { resolve } = query;
  query.resolve = (value) => {
    query.resolve = resolve;
    // An error may come with the first bytes, before anybody could listen; reading meets it all the same.
    (value as Readable).on("error", () => {});
    resolve(value);
  };
  const stream = await query.readable();
  const chunks = stream.iterator({ destroyOnReturn: false }) as AsyncIterable<Uint8Array>;
  let isOver = false;
  try {
    for await (const chunk of chunks) yield chunk;
    isOver = true;
  } catch (error) {
    isOver = true;
    throw error;
  } finally {
    if (!isOver) await drained(stream);
    resumeSocket(stream);
  }
}

/** The driver may have paused its socket with the last rows, however they were left, and only a read resumes it. */
function resumeSocket(stream: Readable): void {
  try {
    stream._read(0);
  } catch {
    // It has none any more: its connection is gone.
  }
}

function drained(stream: Readable): Promise<void> {
  if (stream.destroyed || stream.readableEnded) return Promise.resolve();
  return new Promise((done) => {
    stream.once("end", done).once("close", done).once("error", () => done()).resume();
  });
}

/** A COPY … FROM STDIN that says what the server finds wrong, also after the last row, which the driver keeps to itself. */
export interface CopyIn {
  write(text: string): Promise<void>;
  end(): Promise<void>;
  /** Gives it up, after which the transaction can be rolled back: the driver sends nothing else while it is open. */
  abort(): void;
}

export async function copyIn(tx: Pick<WorkerSql, "unsafe">, statement: string): Promise<CopyIn> {
  const query = tx.unsafe(statement) as CopyQuery;
  const { resolve } = query;
  query.resolve = (value) => {
    query.resolve = resolve;
    // An error may come with the server's consent, as a trigger's does, before anybody could listen.
    (value as Writable).on("error", (error) => early ??= { error });
    resolve(value);
  };
  let early: { error: unknown } | undefined;
  const stream = await query.writable();
  let failure: { error: unknown } | undefined;
  let wake: () => void = () => {};
  const fail = (error: unknown): void => {
    failure ??= { error };
    wake();
  };
  query.reject = fail;
  stream.on("error", fail).on("drain", () => wake());
  if (early) fail(early.error);
  // One promise a wait: racing the same again and again would keep all of them as long as the COPY lasts.
  const wait = (start: (done: () => void) => boolean): Promise<void> =>
    new Promise<void>((done) => {
      wake = done;
      if (failure || start(done)) done();
    }).then(() => {
      if (failure) throw failure.error;
    });
  return {
    write: (text) => wait(() => stream.write(text)),
    // An error after the last row comes in place of the end.
    end: () =>
      wait((done) => {
        stream.end(() => done());
        return false;
      }),
    abort: () => void stream.destroy(new Error("Given up")),
  };
}
