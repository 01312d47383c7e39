// Quoted text and comments, so that no word inside them counts. In this order: what opens first wins. A doubled quote ends
// one text and begins the next, for a pattern that goes on over it needs a stack as deep as the text is long.
const QUOTED =
  /\/\*[\s\S]*?(?:\*\/|$)|--[^\n]*|\be'[^'\\]*(?:(?:\\[\s\S]|'')[^'\\]*)*(?:'|$)|'[^']*(?:'|$)|"[^"]*(?:"|$)|\$([a-z_\u0080-\uffff][\w\u0080-\uffff]*)?\$[\s\S]*?(?:\$\1\$|$)/gi;

const WRITES = /\b(?:insert|update|delete|merge|truncate|call|do|execute|into)\b|\bcopy\b[\s\S]*\bfrom\b/i;

// Locks, not writes: `select … for update`, `for no key update`.
const ROW_LOCK = /\bfor\s+(?:no\s+key\s+)?update\b/gi;

const CONTROL =
  /(?:^|;)\s*(?:begin|start\s+transaction|commit|end|rollback|abort|savepoint|release|prepare|deallocate|set|reset|show|listen|unlisten|notify|vacuum|analyze|cluster|reindex|checkpoint|discard|lock|alter\s+system|create\s+database|drop\s+database|create\s+tablespace|drop\s+tablespace)\b/i;

const ROLLBACK = /\b(?:rollback|abort)\b/i;

// In groups: what begins a transaction or keeps one open, what ends it.
const BOUNDARY =
  /(?:^|;)\s*(?:(begin|start\s+transaction|(?:commit|end|rollback|abort)(?:\s+work|\s+transaction)?\s+and\s+chain)|(commit|end|abort|prepare\s+transaction|rollback(?!(?:\s+work|\s+transaction)?\s+to\b)))\b/gi;

// A function's body in SQL: its `end` ends no transaction.
const FUNCTION_BODY = /\bbegin\s+atomic\b/i;

// Several statements in one string, or rows that travel beside it.
const SIMPLE = /;\s*[^;\s]|\bcopy\b/i;

/** What a statement means for the context: whether it may change rows, and whether it steers the transaction itself. */
export interface StatementKind {
  /** It holds a data-modifying keyword as a token. */
  readonly writes: boolean;
  /** It begins or ends transactions or savepoints, changes settings, or is maintenance: it never gets a transaction of its own. */
  readonly controls: boolean;
  /** It may undo the setting of a context. */
  readonly rollsBack: boolean;
  /** Whether a transaction is open behind it, where it says so. */
  readonly leaves: "open" | "closed" | undefined;
  /** Only the simple query protocol can send it: several statements in one string, or COPY. */
  readonly isSimple: boolean;
}

/** Of a text that is not known, as of a file that the driver itself reads: it is taken for a write. */
export const UNREAD: StatementKind = {
  writes: true,
  controls: false,
  rollsBack: true,
  leaves: undefined,
  isSimple: true,
};

const MAX_KNOWN = 1000;
const known: Map<string, StatementKind> = new Map();

/** Looks at the words of an SQL text, outside its comments and literals. What was seen lately is remembered. */
export function statementKind(sql: string): StatementKind {
  const seen = known.get(sql);
  if (seen) return seen;
  const kind = kindOf(sql);
  // A text with inlined values is hardly seen twice, and may be long.
  if (sql.length <= 4096) {
    if (known.size >= MAX_KNOWN) known.clear();
    known.set(sql, kind);
  }
  return kind;
}

function kindOf(sql: string): StatementKind {
  let words: string;
  try {
    words = sql.replace(QUOTED, " ").replace(ROW_LOCK, " ");
  } catch {
    // Millions of escapes in one literal are more than the engine's stack holds.
    return UNREAD;
  }
  return {
    writes: WRITES.test(words),
    controls: CONTROL.test(words),
    rollsBack: ROLLBACK.test(words),
    leaves: leaves(words),
    isSimple: SIMPLE.test(words),
  };
}

function leaves(words: string): StatementKind["leaves"] {
  if (FUNCTION_BODY.test(words)) return undefined;
  let state: StatementKind["leaves"];
  for (const match of words.matchAll(BOUNDARY)) state = match[1] ? "open" : "closed";
  return state;
}
