/**
 * A kysely database of any dialect, with the context of each write in a comment at the end of its statement.
 *
 * @module
 */
import { withComment } from "./comment.ts";
import { statementKind } from "./statement-kind.ts";
import { unsupportedClient } from "./unsupported-client.ts";
import { wrapOnce } from "./wrap-once.ts";
import type { WrapOptions } from "./wrap-options.ts";

export type { WrapOptions } from "./wrap-options.ts";

/** What of a kysely database, or of a transaction of it, is used. */
export interface KyselyDatabase {
  /** The same database with a plugin, which sees each query before it is compiled. */
  // deno-lint-ignore no-explicit-any -- kysely's own types are kept by the type parameter of withBemi
  withPlugin(plugin: any): unknown;
}

/** A query as kysely's tree: what of it is looked at here. */
interface QueryNode {
  readonly kind: string;
  readonly endModifiers?: readonly object[];
  readonly with?: unknown;
  /** Of text that the application wrote. */
  readonly sqlFragments?: readonly string[];
}

const WRITES = ["InsertQueryNode", "UpdateQueryNode", "DeleteQueryNode", "MergeQueryNode"];

/**
 * Wraps a kysely database: a write that is executed within a context carries it, in and outside transactions; outside a
 * context nothing changes. It costs no round trip, and fits any dialect. Where kysely gets its connections from a client
 * that has an adapter here, that client can be wrapped instead.
 *
 * @throws {BemiError} `unsupported_client`
 * @example
 * ```ts
 * import { Kysely, PostgresDialect } from "kysely";
 * import pg from "pg";
 * import { withBemi } from "@bemi/core/kysely";
 * const db = withBemi(new Kysely({ dialect: new PostgresDialect({ pool: new pg.Pool() }) }));
 * ```
 */
export function withBemi<K extends KyselyDatabase>(db: K, options: WrapOptions = {}): K {
  if (typeof db?.withPlugin !== "function") {
    throw unsupportedClient(db, {
      subpath: "kysely",
      takes: "a database of kysely",
      hint: "Pass a Kysely, or a Transaction of one: withBemi(new Kysely({ dialect })).",
    });
  }
  const plugin = {
    transformQuery: ({ node }: { readonly node: QueryNode }) => commented(node, options),
    transformResult: ({ result }: { readonly result: unknown }) => Promise.resolve(result),
  };
  return wrapOnce(db, () => db.withPlugin(plugin) as object);
}

function commented(node: QueryNode, options: WrapOptions): QueryNode {
  if (!carries(node, options)) return node;
  const comment = withComment("", { wrap: "all" });
  if (comment === "") return node;
  const { sqlFragments } = node;
  if (sqlFragments) {
    return {
      ...node,
      sqlFragments: [...sqlFragments.slice(0, -1), `${sqlFragments.at(-1) ?? ""}${comment}`],
    };
  }
  const text = { kind: "RawNode", sqlFragments: [comment], parameters: [] };
  const last = node.kind === "SelectQueryNode" ? { kind: "SelectModifierNode", rawModifier: text } : text;
  return { ...node, endModifiers: [...node.endModifiers ?? [], last] };
}

function carries(node: QueryNode, { wrap }: WrapOptions): boolean {
  if (!WRITES.includes(node.kind) && node.kind !== "SelectQueryNode" && node.kind !== "RawNode") return false;
  return wrap === "all" || holdsWrite(node.kind === "SelectQueryNode" ? node.with : node);
}

/** Whether a tree holds a query that writes, or text that does: such text may be in parts, with a query between. */
function holdsWrite(tree: unknown): boolean {
  if (Array.isArray(tree)) return tree.some(holdsWrite);
  if (typeof tree !== "object" || tree === null) return false;
  const { kind, sqlFragments } = tree as QueryNode;
  return WRITES.includes(kind) ||
    sqlFragments !== undefined && statementKind(sqlFragments.join(" ? ")).writes ||
    Object.values(tree).some(holdsWrite);
}
