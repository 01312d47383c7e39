/**
 * Any client that takes SQL as text, with the context of each write in a comment at the end of its statement: for
 * drivers that can neither pipeline nor batch, and have no adapter of their own here.
 *
 * @module
 */
import { statementContext } from "../context/statement-context.ts";
import { warn } from "../context/warn.ts";
import { replacing } from "./replacing.ts";
import { statementKind } from "./statement-kind.ts";
import { unsupportedClient } from "./unsupported-client.ts";
import { wrapOnce } from "./wrap-once.ts";
import type { WrapOptions } from "./wrap-options.ts";

export type { WrapOptions } from "./wrap-options.ts";

/** Options of {@linkcode withBemi}. */
export interface CommentOptions extends WrapOptions {
  /**
   * The client's methods whose first argument is the SQL, or an object that has it as `text` or `sql`.
   * @default ["query"]
   */
  readonly methods?: readonly string[];
}

/**
 * Wraps a client: a write made within a context carries it in a comment, in and outside transactions; outside a context
 * nothing changes. A prepared statement with a name keeps its text, and goes without, with a warning.
 *
 * @throws {BemiError} `unsupported_client`
 * @example
 * ```ts
 * import pg from "pg"; // stands for any client; this one has an adapter of its own
 * import { withBemi } from "@bemi/core/comment";
 * const client = withBemi(new pg.Client(), { methods: ["query"] });
 * ```
 */
export function withBemi<C extends object>(client: C, options: CommentOptions = {}): C {
  const { methods = ["query"] } = options;
  const missing = methods.find((name) =>
    typeof (client as Record<string, unknown> | undefined)?.[name] !== "function"
  );
  if (missing !== undefined) {
    throw unsupportedClient(client, {
      subpath: "comment",
      takes: `a client with the method "${missing}"`,
      hint: 'Name the client\'s methods that take SQL: withBemi(client, { methods: ["query"] }).',
    });
  }
  const own = Object.fromEntries(methods.map((name) => [name, (statement: unknown, ...rest: unknown[]) => {
    const method = Reflect.get(client, name) as (...args: unknown[]) => unknown;
    return method.call(client, commented(statement, options), ...rest);
  }]));
  return wrapOnce(client, () => replacing(client, own));
}

/**
 * A statement with the context in force here as a comment at its very end, where the database looks for it; the statement
 * itself where there is no context, or it does not write. Whatever the context holds, the comment ends where it should.
 *
 * @example
 * ```ts
 * import { withComment } from "@bemi/core/comment";
 * console.log(withComment("DELETE FROM todos")); // … /*Bemi {"user_id":42} Bemi*\/
 * ```
 */
export function withComment(sql: string, options: WrapOptions = {}): string {
  const context = statementContext();
  if (context === undefined) return sql;
  if (options.wrap !== "all" && !statementKind(sql).writes) return sql;
  // On a line of its own: the statement may end in a comment that goes to the end of its line.
  return `${sql}\n/*Bemi ${escaped(context)} Bemi*/`;
}

/**
 * JSON without anything that ends a comment, or that a library between here and the server takes for a placeholder:
 * `/`, `*`, `?`, `$`, `%`, `'`, and all that is not ASCII. Such characters occur within its strings alone.
 */
function escaped(json: string): string {
  return json.replace(
    /[^\w .,:{}[\]"\\+-]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

function commented(statement: unknown, options: CommentOptions): unknown {
  if (typeof statement === "string") return withComment(statement, options);
  if (typeof statement !== "object" || statement === null) return statement;
  for (const key of ["text", "sql"]) {
    const sql = (statement as Record<string, unknown>)[key];
    if (typeof sql !== "string") continue;
    const changed = withComment(sql, options);
    if (changed === sql) return statement;
    if ("name" in statement && statement.name) {
      warn("a prepared statement with a name keeps its text: it went without its context");
      return statement;
    }
    // Defined, for the text may be a getter of its class.
    return Object.create(Object.getPrototypeOf(statement), {
      ...Object.getOwnPropertyDescriptors(statement),
      [key]: { value: changed, writable: true, enumerable: true, configurable: true },
    });
  }
  return statement;
}
