import type { WorkerOptions } from "./run-worker.ts";
import type { SocketWatch } from "./socket-watch.ts";

/** A worker's options as its sessions have them. */
export interface SessionOptions extends WorkerOptions {
  /**
   * Milliseconds to wait for another worker's transaction.
   * @default 3000
   */
  readonly patience?: number | undefined;
  /** To be called whenever its loop turns. */
  readonly turn?: (() => void) | undefined;
  readonly sockets?: SocketWatch | undefined;
}
