/**
 * The worker: from the Write-Ahead Log to the log of changes.
 *
 * @module
 */
export { poll } from "./poll-once.ts";
export type { PollOptions, PollResult } from "./poll-once.ts";
export { runWorker } from "./run-worker.ts";
export type { Worker, WorkerEvent, WorkerOptions } from "./run-worker.ts";
export { createSlot } from "./slot.ts";
export type { SlotOptions } from "./slot.ts";
export type { SpanLike, TracerLike } from "./trace.ts";
