import { BemiError } from "../errors.ts";
import { type JsonObject, type Operation, OPERATIONS } from "./change.ts";
import { parseCursor } from "./cursor.ts";
import { requireDefined } from "./defined.ts";
import { type Key, keyText } from "./key.ts";
import { timeText } from "./moment.ts";
import { readTransactionName } from "./transaction-name.ts";

/** What a change may be, or with `not` may not be; several values mean any of them. None may be `undefined`. */
export interface ChangeConditions {
  /** `todos`, or with its schema `app.todos`: names as the log has them, without quotes. */
  readonly table?: string | readonly string[];
  /** The primary key, before the change or after it; a JSON array's text of several columns. */
  readonly key?: Key | readonly Key[];
  /** What was done. */
  readonly operation?: Operation | readonly Operation[];
  /** Contained in the row before the change, as `@>` has it; an object, or JSON text where numbers must be exact. */
  readonly before?: JsonObject | string;
  /** Contained in the row after the change. */
  readonly after?: JsonObject | string;
  /** Contained in the change's context. */
  readonly context?: JsonObject | string;
  /** A column whose value differs between before and after. */
  readonly changed?: string | readonly string[];
  /** `transaction_id` of a change, or the `key` of a group by transaction. */
  readonly transaction?: string | readonly string[];
}

/** Which changes to read; what is left out does not restrict, what is `undefined` is an error. */
export interface ChangesFilter extends ChangeConditions {
  /** What it may not be. */
  readonly not?: ChangeConditions;
  /** Earliest time of commit, as PostgreSQL reads a timestamp. */
  readonly since?: Date | string;
  /** Time of commit before which to stop. */
  readonly until?: Date | string;
}

/** Which of them, by their place in the total order. */
export interface Page {
  /** So many: after the cursor `after`, else before the cursor `before`, else the latest. */
  readonly limit?: number | undefined;
  /** The cursor of a change, to read what follows it; `""` begins with the oldest. */
  readonly after?: string | undefined;
  /** The cursor of a change, to read what precedes it. */
  readonly before?: string | undefined;
}

/** Puts a value into a statement's parameters, and returns its placeholder with a cast. */
export type Bind = (value: string, type: string) => string;

/** Collects parameters, which travel as text. */
export function binder(parameters: string[]): Bind {
  return (value, type) => `$${parameters.push(value)}::text::${type}`;
}

/**
 * An object to be contained, as JSON text. A member that is `undefined`, a function or a symbol would vanish from it, and
 * everything be found.
 *
 * @throws {BemiError} `usage`
 */
export function containedJson(name: string, value: JsonObject | string): string {
  if (typeof value === "string") return value;
  return JSON.stringify(value, (key, member: unknown) => {
    const kind = typeof member;
    if (kind !== "undefined" && kind !== "function" && kind !== "symbol") return member;
    throw new BemiError(
      "usage",
      `"${key}" is ${member === undefined ? kind : `a ${kind}`} in the ${name} to look for`,
      {
        hint: "Leave it out, or pass null for what is JSON's null.",
      },
    );
  });
}

/** Whether a key is a JSON array of several values that jsonb, and so the log, may write otherwise: `[1,2]`. */
export function isOtherwiseSpelled(key: string): boolean {
  if (!key.startsWith("[")) return false;
  try {
    const values: unknown = JSON.parse(key);
    return Array.isArray(values) && values.length > 1 &&
      key !== `[${values.map((value) => JSON.stringify(value)).join(", ")}]`;
  } catch {
    return false;
  }
}

/**
 * A filter as SQL conditions over the columns of the log.
 *
 * @throws {BemiError} `usage`
 */
export function filterConditions(filter: ChangesFilter, bind: Bind): string[] {
  const parts = changeConditions(filter, bind);
  // Each of them must not hold, whatever is NULL.
  for (const part of filter.not ? changeConditions(filter.not, bind) : []) {
    parts.push(`(${part}) is not true`);
  }
  const time = (value: Date | string): string => bind(timeText(value), "timestamptz");
  if (filter.since !== undefined) parts.push(`committed_at >= ${time(filter.since)}`);
  if (filter.until !== undefined) parts.push(`committed_at < ${time(filter.until)}`);
  return parts;
}

/** By what changes are ordered before their LSN. */
export type OrderBy = "source_id" | "epoch";

/** The places between two cursors as SQL conditions. */
export function pageConditions({ after, before }: Page, bind: Bind, order: OrderBy = "source_id"): string[] {
  const place = (operator: string, cursor: string): string => {
    const { source, lsn, index } = parseCursor(cursor);
    const own = bind(source, "integer");
    const first = order === "epoch"
      ? `(select e.epoch from "bemi".epochs e where e.source_id = ${own})`
      : own;
    return `(${order}, commit_lsn, transaction_index) ${operator} (${first}, ${bind(lsn, "pg_lsn")}, ${
      bind(index, "bigint")
    })`;
  };
  return [
    ...(after ? [place(">", after)] : []),
    ...(before ? [place("<", before)] : []),
  ];
}

const NARROWING = [
  ...["table", "key", "operation", "before", "after", "context", "changed", "transaction"],
  ...["not", "since", "until"],
];

function changeConditions(filter: ChangeConditions, bind: Bind): string[] {
  requireDefined(filter, NARROWING, "The filter's");
  const parts: string[] = [];
  const any = (
    values: string | readonly string[] | undefined,
    condition: (value: string) => string,
  ): void => {
    if (values === undefined) return;
    const each = (typeof values === "string" ? [values] : values).map(condition);
    parts.push(each.length === 0 ? "false" : `(${each.join(" or ")})`);
  };
  const contained = (column: string, value: JsonObject | string | undefined): void => {
    if (value !== undefined) parts.push(`${column} @> ${bind(containedJson(column, value), "jsonb")}`);
  };
  any(filter.table, (name) => {
    const [table = "", ...schema] = name.split(".").reverse();
    const condition = `"table" = ${bind(table, "text")}`;
    return schema.length === 0
      ? condition
      : `${condition} and schema = ${bind(schema.reverse().join("."), "text")}`;
  });
  const keys = filter.key === undefined || typeof filter.key === "object" ? filter.key : [filter.key];
  any(keys?.map(keyText), (value) => {
    const key = bind(value, "text");
    const is = (spelled: string, more = ""): string[] =>
      ["primary_key", "former_primary_key"].map((column) =>
        `pg_catalog.hashtextextended(${column}, 0) = pg_catalog.hashtextextended(${spelled}, 0) and ${column} = ${spelled}${more}`
      );
    const other = isOtherwiseSpelled(value)
      ? is(`(${key})::jsonb::text`, ' and "bemi".has_wide_key(schema, "table")')
      : [];
    return [...is(key), ...other].join(" or ");
  });
  any(filter.operation, (value) => {
    if (!(OPERATIONS as readonly string[]).includes(value)) {
      throw new BemiError("usage", `There is no operation "${value}"`, {
        hint: `Choose from ${OPERATIONS.join(", ")}: an INSERT is a CREATE.`,
      });
    }
    return `operation = ${bind(value, "text")}`;
  });
  any(filter.transaction, (value) => {
    const name = readTransactionName(value);
    if (name === undefined) {
      throw new BemiError("usage", "This is no transaction", {
        hint: "Pass the transaction_id of a change, or the key of a group by transaction.",
      });
    }
    return [
      ...(name.source === undefined ? [] : [`source_id = ${bind(name.source, "integer")}`]),
      ...(name.id === undefined ? [] : [`transaction_id = ${bind(name.id, "bigint")}`]),
      ...(name.commitLsn === undefined ? [] : [`commit_lsn = ${bind(name.commitLsn, "pg_lsn")}`]),
    ].join(" and ");
  });
  contained("before", filter.before);
  contained("after", filter.after);
  contained("context", filter.context);
  any(filter.changed, (value) => {
    const column = bind(value, "text");
    return `(before -> ${column}) is distinct from (after -> ${column})`;
  });
  return parts;
}
