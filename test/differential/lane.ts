import type { Database } from "../../src/database/port.ts";
import type { Setting } from "./scenario.ts";
import type { Statement } from "./statements.ts";

export type LaneName = "plain" | "trigger" | "poll" | "stream";

/** One change, as a lane has it. Images and context are jsonb as text. */
export interface Row {
  readonly transaction: string;
  readonly schema: string;
  readonly table: string;
  readonly operation: string;
  readonly key: string | null;
  readonly former: string | null;
  readonly before: string;
  readonly after: string;
  readonly context: string;
  /** By what it was captured. */
  readonly capture?: "trigger" | "wal";
  /** Of the oracle: INSERT, UPDATE, DELETE; what a partition move is made of. */
  readonly statement?: string;
}

/** A database with one way of capture, or with the oracle. */
export interface Lane extends AsyncDisposable {
  readonly name: LaneName;
  /** For looking in, beside the application's session. */
  readonly inspect: Database;
  readonly version: number;
  readonly encoding: string;
  /** The application's session, while there is one. */
  readonly session: Database;
  /** Begins a session of the application's. */
  begin(settings: readonly Setting[]): Promise<void>;
  /** `ok`, or the SQLSTATE. */
  execute(statement: Statement): Promise<string>;
  end(): Promise<void>;
  /** What the log has of the scenarios from a number on, in the total order, once all of it is there. */
  collect(first: number): Promise<Row[]>;
}

/** A lane in the making: the same database as often as one is needed. */
export interface LaneTemplate extends AsyncDisposable {
  open(): Promise<Lane>;
}
