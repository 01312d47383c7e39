import type { Buffer } from "node:buffer";
import { jsonMembers, skipString } from "../json-members.ts";
import { commentTexts } from "./comment.ts";

/** What a context trigger said of a statement. */
export interface ContextMessage {
  /** The root of the table that the statement names, or that table itself. */
  readonly root: number;
  /** The table whose trigger spoke: another than the root where the statement writes to a partition by its name. */
  readonly leaf: number;
  readonly operation: "INSERT" | "UPDATE" | "DELETE" | "TRUNCATE" | "SNAPSHOT" | "RECONCILE";
  /** The whole context as it is stored, a JSON object. */
  readonly context: string;
  /** The owner's secret, which is in each message of a sealed installation. */
  readonly seal: string | undefined;
}

/** A row of a baseline, or one to be compared with the log. */
export interface SnapshotMessage {
  readonly operation: "SNAPSHOT" | "RECONCILE";
  readonly root: number;
  /** The owner's secret: whoever lacks it may not say what a row holds. */
  readonly seal: string;
  /** The primary key as it is stored. */
  readonly key: string | null;
  /** A JSON object, as the server wrote it; the text `null` for a key that no row has. */
  readonly image: string;
  /** Of a row to be compared: what the log has to know of its table, if anything, as JSON. */
  readonly past: string | undefined;
}

const OPERATIONS: readonly string[] = ["INSERT", "UPDATE", "DELETE", "TRUNCATE", "SNAPSHOT", "RECONCILE"];

/** Reads a message of `emit_context()` or `emit_message()`; `undefined` for what is none, or of a version to come. */
export function parseMessage(content: Buffer): ContextMessage | undefined {
  if (content[0] !== CONTEXT_VERSION) return undefined;
  const text = content.toString("utf8", 1);
  const [head = "", root, leaf = "", pid, operation = ""] = HEAD.exec(text) ?? [];
  const quoted = readLiterals(text, head.length, 7);
  if (!OPERATIONS.includes(operation) || !quoted) return undefined;
  const [user = "", role, application = "", context, claims, client, seal] = quoted.literals;
  const db = `{"user": ${JSON.stringify(user)}, "role": ${
    JSON.stringify(role && role !== "none" ? role : user)
  }, "pid": ${Number(pid)}, "application_name": ${JSON.stringify(application)}${
    operation === "RECONCILE" ? ', "reconciled": true' : ""
  }`;
  return {
    root: Number(root || leaf),
    leaf: Number(leaf),
    operation: operation as ContextMessage["operation"],
    context: storedContext({ db, statement: text.slice(quoted.end), context, claims, client }),
    seal,
  };
}

/** Reads a message of `emit_snapshots()` or `emit_live_rows()`; `undefined` for what is none. */
export function parseSnapshot(content: Buffer): SnapshotMessage | undefined {
  const isLive = content[0] === LIVE_VERSION;
  const [root, seal, key, image, past] = readTexts(content, isLive ? LIVE_VERSION : SNAPSHOT_VERSION) ?? [];
  if (!isNumber(root) || seal === undefined || image === undefined) return undefined;
  const operation = isLive ? "RECONCILE" : "SNAPSHOT";
  return { operation, root: Number(root), seal, key: key ?? null, image, past };
}

/** Whether a message says that tables or types are other than they were. */
export function isNotice(content: Buffer): boolean {
  return content[0] === NOTICE_VERSION;
}

/**
 * The context that another Bemi's row trigger put bare into the WAL, as a JSON object; `undefined` for what is none.
 * Anybody could have written it, so it says nothing of what only the database knows.
 */
export function parseBareContext(content: Buffer): string | undefined {
  for (const text of commentTexts(content.toString("utf8"))) {
    const members = objectMembers(text)?.filter(([key]) => !OWN_KEYS.includes(key));
    if (members) return jsonObject(members);
  }
  return undefined;
}

const OWN_KEYS: readonly string[] = ["db", "jwt", "client"];
const CONTEXT_VERSION = 0x31;
const SNAPSHOT_VERSION = 0x32;
const NOTICE_VERSION = 0x33;
const LIVE_VERSION = 0x34;

// The table's root or nothing, the table, the process, the operation.
const HEAD = /^(\d{0,10}) (\d{1,10}) (\d{1,10}) ([A-Z]+) /;

interface Quoted {
  /** `undefined` is NULL. */
  readonly literals: readonly (string | undefined)[];
  /** Where what follows them begins. */
  readonly end: number;
}

/** Literals as `quote_nullable()` writes them, a blank behind each; `undefined` where there are not so many. */
function readLiterals(text: string, start: number, count: number): Quoted | undefined {
  const literals: (string | undefined)[] = [];
  let at = start;
  while (literals.length < count) {
    if (text.startsWith("NULL ", at)) {
      literals.push(undefined);
      at += 5;
      continue;
    }
    const isEscaped = text.startsWith("E", at);
    const begin = at + (isEscaped ? 2 : 1);
    let end = text.indexOf("'", begin);
    while (end >= 0 && text[end + 1] === "'") end = text.indexOf("'", end + 2);
    if (text[begin - 1] !== "'" || end < 0 || text[end + 1] !== " ") return undefined;
    const literal = text.slice(begin, end).replaceAll("''", "'");
    literals.push(isEscaped ? literal.replaceAll("\\\\", "\\") : literal);
    at = end + 2;
  }
  return { literals, end: at };
}

/** One byte of version, then a JSON array of texts and whole numbers; `undefined` in it is NULL. */
function readTexts(content: Buffer, version: number): (string | undefined)[] | undefined {
  if (content[0] !== version) return undefined;
  let values: unknown;
  try {
    values = JSON.parse(content.toString("utf8", 1));
  } catch {
    return undefined;
  }
  if (!Array.isArray(values)) return undefined;
  return values.map((value: unknown) =>
    typeof value === "string" ? value : Number.isSafeInteger(value) ? String(value) : undefined
  );
}

function isNumber(text: string | undefined): boolean {
  return text !== undefined && /^\d{1,10}$/.test(text);
}

interface Parts {
  readonly db: string;
  readonly statement: string;
  readonly context: string | undefined;
  readonly claims: string | undefined;
  readonly client: string | undefined;
}

// As current_context() in SQL puts it together: the application's keys, what PostgREST said, SQL, and db, which wins.
function storedContext({ db, statement, context, claims, client }: Parts): string {
  const own = context ? objectMembers(context) : [];
  const members = (own ?? []).filter(([key]) => !OWN_KEYS.includes(key));
  if (claims && objectMembers(claims)) members.push(["jwt", claims]);
  if (client && objectMembers(client)) members.push(["client", client]);
  if (statement && !members.some(([key]) => key === "SQL")) {
    members.push(["SQL", JSON.stringify(statement)]);
  }
  members.push(["db", db + (own ? "}" : ', "context_error": "not a JSON object"}')]);
  return jsonObject(members);
}

function jsonObject(members: readonly (readonly [key: string, value: string])[]): string {
  return `{${members.map(([key, value]) => `${JSON.stringify(key)}: ${value}`).join(", ")}}`;
}

/**
 * The members of a JSON object. `undefined` where jsonb would take a text for no object: other JSON, `\u0000`, half a
 * surrogate pair.
 */
export function objectMembers(text: string): [key: string, value: string][] | undefined {
  return isJsonb(text) && /^\s*\{/.test(text) ? jsonMembers(text) : undefined;
}

/** Whether jsonb accepts a text. */
export function isJsonb(text: string): boolean {
  try {
    JSON.parse(text);
  } catch {
    return false;
  }
  return !hasUnstorableEscape(text) && !isBeyondJsonb(text);
}

/** Whether a JSON text escapes a NUL or half a surrogate pair, which json takes and jsonb refuses. */
export function hasUnstorableEscape(text: string): boolean {
  if (!text.includes("\\u") || !/\\u(?:0000|d[89a-f])/i.test(text)) return false;
  const escapes = /\\(?:u([0-9a-f]{4})|[^u])/gi;
  let high = -1;
  for (const match of text.matchAll(escapes)) {
    const code = match[1] === undefined ? -1 : parseInt(match[1], 16);
    const isLow = code >= 0xdc00 && code <= 0xdfff;
    if (code === 0 || isLow !== (high === match.index)) return true;
    high = code >= 0xd800 && code <= 0xdbff ? match.index + match[0].length : -1;
    if (high >= 0 && text.slice(high, high + 2) !== "\\u") return true;
  }
  return false;
}

/** How deep PostgreSQL follows a nesting is a matter of its stack: some 16,000 levels as it comes. */
const MAX_DEPTH = 5000;

// Nested too deeply, or a number of which numeric, that ends at 131072 digits before the point, has none.
function isBeyondJsonb(json: string): boolean {
  const tokens = /["[{\]}]|[eE][+-]?\d{5,}/g;
  let depth = 0;
  for (let match = tokens.exec(json); match; match = tokens.exec(json)) {
    const [token] = match;
    if (token === '"') tokens.lastIndex = skipString(json, match.index);
    else if (token === "]" || token === "}") depth--;
    else if (token !== "[" && token !== "{" || ++depth > MAX_DEPTH) return true;
  }
  return false;
}
