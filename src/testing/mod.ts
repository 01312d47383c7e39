/**
 * A database between tests: what changed within a block, and back and forth between states. Every table has to be
 * tracked by triggers.
 *
 * @module
 */
export { changesWithin } from "./changes-within.ts";
export type { ChangedWithin } from "./changes-within.ts";
export { mark } from "./mark.ts";
export type { Mark, MarkOptions } from "./mark.ts";
export { forward, rewind } from "./rewind.ts";
export type { SequenceState } from "./sequences.ts";
