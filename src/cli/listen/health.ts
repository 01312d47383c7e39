import type { WorkerState } from "./worker-state.ts";

/** A part of the answer to a probe. */
export interface Health {
  readonly isWell: boolean;
  /** What is wrong. */
  readonly reason?: string;
}

/** How long one turn may take: PostgreSQL decodes a transaction of millions of rows before it sends the first. */
const LONGEST_TURN = 600_000;

/** Whether the worker is alive: a restart helps where it is not. */
export function health(turnedAt: number): Health {
  const silence = Date.now() - turnedAt;
  if (silence <= LONGEST_TURN) return { isWell: true };
  return { isWell: false, reason: `its loop has not turned for ${Math.round(silence / 1000)} s` };
}

/** Whether the worker does its work, or stands by for it, and is not further behind than so many bytes. */
export function readiness({ mode, slot }: WorkerState, readyLag: number): Health {
  if (mode === "connecting") return { isWell: false, reason: "it is not connected" };
  if (mode === "standby") return { isWell: true };
  if (!slot) return { isWell: false, reason: "it has not looked at its slot yet" };
  if (slot.confirmedLag <= readyLag) return { isWell: true };
  return { isWell: false, reason: `it is ${slot.confirmedLag} bytes of WAL behind` };
}
