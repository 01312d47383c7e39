import { connect } from "../database/connect.ts";
import type { DatabaseLike } from "../database/port.ts";
import { BemiError } from "../errors.ts";
import { DEFAULT_SCHEMA } from "../identifiers.ts";
import type { Change, JsonObject } from "./change.ts";
import { type ChangesOptions, readJson } from "./changes.ts";
import { requireDefined } from "./defined.ts";
import { type Bind, binder, type ChangeConditions, containedJson, filterConditions } from "./filter.ts";
import { type Group, type GroupsOptions, groupsStatement, readGroups } from "./groups.ts";
import { type Numbers, parseJson } from "./numbers.ts";

/** What all reads through a scope are bound to. At least one of `table`, `key`, `row`, `context` and `transaction`. */
export interface Scope extends Pick<ChangeConditions, "table" | "key" | "context" | "transaction"> {
  /** Contained in the row, before the change and after it, as far as there was one: `{ tenant_id: 7 }`. */
  readonly row?: JsonObject | string;
  /**
   * The columns that are shown.
   * @default all
   */
  readonly columns?: readonly string[];
  /**
   * The keys of the context that are shown.
   * @default none: it may name other people, and holds the statement and the role
   */
  readonly contextKeys?: readonly string[] | undefined;
  /**
   * The schema of the installation.
   * @default "bemi"
   */
  readonly schema?: string | undefined;
  /**
   * How numbers are given.
   * @default "number"
   */
  readonly numbers?: Numbers | undefined;
}

/** Options of a read through a scope: they narrow it further, and can never widen it. */
export type ScopedChangesOptions = Omit<ChangesOptions, "schema" | "numbers">;

/** Reads that stay within a scope. */
export interface ScopedHistory {
  /** Reads changes, as {@linkcode changes} does. */
  changes<Row extends object = Record<string, unknown>>(
    options?: ScopedChangesOptions,
  ): Promise<Change<Row>[]>;
  /** Groups changes, as {@linkcode groups} does. */
  groups(options: Omit<GroupsOptions, "schema">): Promise<Group[]>;
}

/**
 * Reads that are fit to show end users their own history: whatever they filter by, they see nothing outside the scope.
 * Changes that take a row into the scope or out of it are not shown, for their other half is somebody else's.
 *
 * @throws {BemiError} `usage` where the scope restricts nothing, or groups by what it does not show
 * @example
 * ```ts
 * import postgres from "postgres";
 * import { scoped } from "@bemi/core/history";
 *
 * const mine = scoped(postgres(), { table: "todos", row: { tenant_id: 7 }, contextKeys: ["user_id"] });
 * await mine.changes({ key: "42", page: { limit: 20 } });
 * ```
 */
export function scoped(db: DatabaseLike, scope: Scope): ScopedHistory {
  // A copy, so that nobody widens it later.
  const { row, columns, contextKeys = [], schema = DEFAULT_SCHEMA, numbers, ...given } = structuredClone(
    scope,
  );
  requireDefined(scope, [...RESTRICTING, "row", "columns"], "The scope's");
  const conditions = pick(given, RESTRICTING);
  requireRestricting(conditions, row);
  const within = (bind: Bind): string[] => {
    const parts = filterConditions(conditions, bind);
    if (row === undefined) return parts;
    const contained = bind(containedJson("row", row), "jsonb");
    const image = (column: string) => `(${column} = '{}' or ${column} @> ${contained})`;
    return [
      ...parts,
      image("before"),
      image("after"),
      "operation <> 'TRUNCATE'",
      "not (before = '{}' and after = '{}')",
    ];
  };
  return {
    changes: async <Row extends object>(options: ScopedChangesOptions = {}) => {
      refuseHidden(options, contextKeys, columns);
      const parameters: string[] = [];
      const bind = binder(parameters);
      const lines = await readJson(connect(db), {
        schema,
        from: '"bemi".changes',
        conditions: [...within(bind), ...filterConditions(options, bind)],
        page: { limit: options.limit, ...options.page },
        bind,
        parameters,
      });
      return lines.map((line) => {
        const change = parseJson(line, numbers) as Change<Row>;
        return {
          ...change,
          before: columns ? pick(change.before, columns) : change.before,
          after: columns ? pick(change.after, columns) : change.after,
          context: pick(change.context, contextKeys),
        };
      });
    },
    groups: async (options) => {
      const path = typeof options.by === "object" ? options.by.context : undefined;
      const shown = path === undefined ||
        contextKeys.includes((typeof path === "string" ? path.split(".") : path)[0] ?? "");
      if (!shown) {
        throw new BemiError("usage", "The scope does not show this part of the context", {
          hint: "Name it in the scope's contextKeys.",
        });
      }
      refuseHidden(options, contextKeys, columns);
      return await readGroups(connect(db), schema, groupsStatement({ ...options, schema }, within));
    },
  };
}

const RESTRICTING = ["table", "key", "context", "transaction"];

// Nothing at all would open the scope to all.
function requireRestricting({ context, ...names }: ChangeConditions, row: Scope["row"]): void {
  const isRestricting = Object.keys(names).length > 0 ||
    Object.entries({ row, context }).some(([name, value]) =>
      value !== undefined && Object.keys(JSON.parse(containedJson(name, value)) as object).length > 0
    );
  if (isRestricting) return;
  throw new BemiError("usage", "The scope restricts nothing", {
    hint: "Give it a table, key, row, context or transaction.",
  });
}

/** What is not shown cannot be asked for either: a filter by it would tell its value by trial. */
function refuseHidden(
  { not, ...filter }: ChangeConditions & { readonly not?: ChangeConditions | undefined },
  contextKeys: readonly string[],
  columns: readonly string[] | undefined,
): void {
  const keys = (value: JsonObject | string | undefined): string[] => {
    const object: unknown = typeof value === "string" ? JSON.parse(value) : value ?? {};
    return typeof object === "object" && object !== null ? Object.keys(object) : [];
  };
  for (const { context, before, after, changed } of [filter, not ?? {}]) {
    const hidden = keys(context).some((name) => !contextKeys.includes(name)) ||
      columns !== undefined &&
        [...keys(before), ...keys(after), ...(typeof changed === "string" ? [changed] : changed ?? [])]
          .some((name) => !columns.includes(name));
    if (hidden) {
      throw new BemiError("usage", "The scope does not show what the filter asks for", {
        hint: "Name it in the scope's columns or contextKeys.",
      });
    }
  }
}

function pick<T extends object>(object: T, keys: readonly string[]): T {
  return Object.fromEntries(Object.entries(object).filter(([key]) => keys.includes(key))) as T;
}
