import { connect } from "../database/connect.ts";
import type { PostgresLike } from "../database/port.ts";
import { DEFAULT_SCHEMA } from "../identifiers.ts";
import { requireInstalled } from "../install/schema.ts";
import { openCheckpoint } from "./checkpoint.ts";
import { openConnection } from "./connection.ts";
import type { Origin } from "./encode.ts";
import { type Heartbeat, heartbeat } from "./heartbeat.ts";
import type { SessionOptions } from "./session-options.ts";
import { openSource, type Source } from "./source.ts";
import type { WorkerSql } from "./sql.ts";
import type { TracerLike } from "./trace.ts";
import { type TypeCatalog, typeCatalog } from "./types.ts";

/** What a worker has while its connections live. */
export interface Link extends AsyncDisposable {
  readonly source: Source;
  /** A connection to the source for COPY alone. */
  readonly reader: WorkerSql;
  readonly destination: WorkerSql;
  readonly destinationSchema: string;
  readonly origin: Omit<Origin, "queuedAt">;
  readonly types: TypeCatalog;
  readonly acceptsBareContexts: boolean;
  readonly heartbeat: Heartbeat;
  /** Milliseconds to wait for another worker's transaction. */
  readonly patience: number;
  readonly tracer?: TracerLike | undefined;
  /** To be called whenever the worker's loop turns. */
  readonly turn?: (() => void) | undefined;
}

/**
 * Connects, and finds the place from which to read.
 *
 * @throws {BemiError} `schema_missing`, `wal_unavailable`, `gap`
 */
export async function openLink(options: SessionOptions): Promise<Link> {
  const { log = () => {}, schema = DEFAULT_SCHEMA, heartbeatInterval = 10_000, patience = 3000 } = options;
  const opened: WorkerSql[] = [];
  const open = async (target: string | object): Promise<WorkerSql> => {
    const sql = await openConnection(target, {}, options.sockets);
    opened.push(sql);
    return sql;
  };
  const close = async (): Promise<void> => {
    await Promise.all(opened.map((sql) => sql.end({ timeout: 5 })));
  };
  try {
    const source = await openSource(await open(options.source), schema, options.slot);
    const reader = await open(options.source);
    const destination = await open(options.destination ?? options.source);
    const db = connect(destination as unknown as PostgresLike);
    await requireInstalled(db, schema);
    const { sourceId, incarnation } = await openCheckpoint({
      source,
      db,
      schema,
      target: options.source,
      recreatesSlot: options.recreateSlot ?? false,
      log,
    });
    const { systemIdentifier, timeline, database } = source;
    log({ kind: "started", slot: source.slot, database });
    return {
      source,
      reader,
      destination,
      destinationSchema: schema,
      origin: {
        sourceId,
        database,
        seed: hash(`${systemIdentifier} ${timeline} ${database}${incarnation > 0 ? ` ${incarnation}` : ""}`),
      },
      types: typeCatalog(source),
      acceptsBareContexts: options.acceptBemiMessages ?? false,
      tracer: options.tracer,
      turn: options.turn,
      patience,
      heartbeat: heartbeat({ db: source.db, interval: heartbeatInterval, log }),
      [Symbol.asyncDispose]: close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

// FNV-1a.
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193);
  return value >>> 0;
}
