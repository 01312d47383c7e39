import { BemiError } from "../errors.ts";
import { changeId } from "./change-id.ts";
import type { Bind } from "./filter.ts";

/**
 * A moment of the past: a time (a Date, or text as PostgreSQL reads it, with microseconds), or just before or just after
 * the transaction to which a change belongs, by the change's id.
 */
export type Moment = Date | string | { readonly before: string } | { readonly after: string };

/** The SQL function that reads a table at a moment, and its arguments after the row's type. */
export function momentCall(
  moment: Moment,
  bind: Bind,
): { name: "as_of" | "as_of_change"; arguments: string } {
  if (isTime(moment)) return { name: "as_of", arguments: bind(timeOf(moment), "timestamptz") };
  const [edge, change] = "before" in moment ? ["before", moment.before] : ["after", moment.after];
  return { name: "as_of_change", arguments: `${bind(changeId(change), "uuid")}, ${bind(edge, "text")}` };
}

/** A moment's time as PostgreSQL reads it; `undefined` where it is named by a change. */
export function timeOf(moment: Date | string): string;
export function timeOf(moment: Moment): string | undefined;
export function timeOf(moment: Moment): string | undefined {
  if (!isTime(moment)) return undefined;
  return timeText(moment);
}

/**
 * A time as PostgreSQL reads it.
 *
 * @throws {BemiError} `usage`
 */
export function timeText(time: Date | string): string {
  if (typeof time === "string") return time;
  if (time instanceof Date && !Number.isNaN(time.getTime())) return time.toISOString();
  throw new BemiError("usage", "This is no time", {
    hint: "Pass a valid Date, or text such as 2026-11-01 12:00+00.",
  });
}

/** @throws {BemiError} `usage` where it is no moment at all */
function isTime(moment: Moment): moment is Date | string {
  if (typeof moment === "string" || moment instanceof Date) return true;
  if (typeof moment === "object" && moment !== null && ("before" in moment || "after" in moment)) {
    return false;
  }
  throw new BemiError("usage", "This is no moment", {
    hint: "Pass a time, as a Date or as text, or { before } or { after } with the id of a change.",
  });
}
