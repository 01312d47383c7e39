/**
 * The worker: from the Write-Ahead Log to the log of changes.
 *
 * @module
 */
export { runWorker } from "./run-worker.ts";
export type { Worker, WorkerEvent, WorkerOptions } from "./run-worker.ts";
export { createSlot } from "./slot.ts";
