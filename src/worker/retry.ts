import { sqlstateOf } from "../database/sqlstate.ts";
import { BemiError } from "../errors.ts";

/** Errors after which trying again makes sense: connections, restarts, failovers, full or slow servers. */
const TRANSIENT = /^(?:08|40|53|57P|58)|^(?:55P03|55006|57014|25006|CONN|E(?:AI_AGAIN|[A-Z]+)$)/;

export function isTransient(code: string): boolean {
  return TRANSIENT.test(code);
}

/** The SQLSTATE of an error, or the code of what kept it from the server; empty for our own and for faults. */
export function codeOf(error: unknown): string {
  if (error instanceof BemiError) return "";
  const state = sqlstateOf(error);
  if (state) return state;
  const code = typeof error === "object" && error !== null ? (error as { code?: unknown }).code : undefined;
  return typeof code === "string" ? code : "";
}

/** Waits, unless it is told to end. */
export function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((done) => {
    const finish = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", finish);
      done();
    };
    const timer = setTimeout(finish, milliseconds);
    signal.addEventListener("abort", finish, { once: true });
  });
}
