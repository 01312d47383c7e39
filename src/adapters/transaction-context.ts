import type { StatementKind } from "./statement-kind.ts";

/** What an open transaction has as its context. */
export interface TransactionContext {
  sent: string;
}

/** Differs from every context: whatever the session has, it is sent anew. */
export const UNKNOWN = "\u0000";

/**
 * The context to send ahead of a statement in a transaction, or `undefined` where it needs none: ahead of the first
 * one, and again once it differs from what the session has, because it changed, or because something was rolled back.
 */
export function contextAhead(
  state: TransactionContext,
  kind: StatementKind,
  context: () => string | undefined,
): string | undefined {
  // A transaction that failed takes nothing but the rollback, and SET TRANSACTION has to come first.
  const text = kind.writes || !kind.controls ? context() ?? "" : state.sent;
  const isNew = text !== state.sent;
  state.sent = kind.rollsBack ? UNKNOWN : text;
  return isNew ? text : undefined;
}
