import type { Lsn } from "./decode.ts";
import type { Link } from "./link.ts";
import type { WorkerEvent } from "./run-worker.ts";
import type { SessionOptions } from "./session-options.ts";
import type { Teller } from "./teller.ts";

/** What the ways of reading have in common while a session lasts. */
export interface Work {
  readonly link: Link;
  readonly options: SessionOptions;
  readonly signal: AbortSignal;
  /** Where a run that ends has come to its end. */
  readonly goal: Lsn | undefined;
  readonly tell: Teller;
  readonly log: (event: WorkerEvent) => void;
  /** What is to be done now and then, however the WAL is read: maintenance, a look at the slot. */
  readonly everySecond: () => Promise<void>;
}
