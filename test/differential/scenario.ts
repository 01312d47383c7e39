import fc from "fast-check";
import { COLUMN_NAMES, COLUMN_TYPES, type Wrap } from "./column-types.ts";
import { SETTINGS } from "./settings.ts";

/** What is rendered to SQL against the tables as they then are; the numbers pick among what there is. */
export interface Op {
  readonly kind: OpKind;
  readonly picks: readonly number[];
}

export const WRITES = [
  "insert",
  "insert",
  "insert-many",
  "insert-select",
  "copy",
  "update",
  "update",
  "update-all",
  "update-key",
  "update-key",
  "update-key",
  "update-nothing",
  "update-from",
  "move",
  "move",
  "move",
  "delete",
  "delete-using",
  "delete-all",
  "upsert",
  "upsert-nothing",
  "merge",
  "writable-cte",
  "truncate",
  "block",
  "block-exception",
  "call",
] as const;

export const CONTEXTS = [
  "set-context",
  "set-context",
  "clear-context",
  "bad-context",
  "comment-context",
  "claims",
  "constraints-deferred",
  "replica-role",
] as const;

export const ALTERATIONS = [
  "add-column",
  "add-column-default",
  "add-generated",
  "drop-column",
  "readd-column",
  "rename-column",
  "rename-key",
  "rename-table",
  "rename-table",
  "rename-schema",
  "rename-schema",
  "set-schema",
  "change-type",
  "expression",
  "identity",
  "inherit",
  "of-type",
  "alter-several",
  "alter-other",
  "alter-other",
  "set-default",
  "drop-not-null",
  "replica-identity",
  "drop-key",
  "add-key",
  "drop-table",
  "recreate-table",
  "attach-partition",
  "detach-partition",
  "create-trigger",
  "drop-trigger",
  "disable-triggers",
  "create-index",
  "cluster",
  "enum-value",
  "enum-rename",
  "composite-attribute",
  "set-logged",
  "create-temporary",
  "rewrite",
  "settings",
] as const;

export type OpKind = (typeof WRITES)[number] | (typeof CONTEXTS)[number] | (typeof ALTERATIONS)[number];

export type Unit =
  | { readonly kind: "statement"; readonly op: Op; readonly isPrepared: boolean }
  | { readonly kind: "several"; readonly ops: readonly Op[] }
  | { readonly kind: "alteration"; readonly op: Op }
  | { readonly kind: "vacuum"; readonly pick: number }
  | {
    readonly kind: "transaction";
    readonly steps: readonly Step[];
    readonly isPrepared: boolean;
    readonly end: "commit" | "rollback" | "two-phase" | "two-phase-late";
  };

export type Step = Op | { readonly savepoint: readonly Op[]; readonly isUndone: boolean };

export interface ColumnSpec {
  readonly name: string;
  readonly type: string;
  readonly wrap: Wrap;
  readonly generated: "no" | "stored" | "virtual";
}

export interface TableSpec {
  readonly kind:
    | "plain"
    | "composite-key"
    | "no-key"
    | "list-partitioned"
    | "hash-partitioned"
    | "sub-partitioned"
    | "inherited"
    | "child"
    | "unlogged";
  /** The type of a plain table's key. */
  readonly key: string;
  readonly identity: "no" | "always" | "default";
  readonly columns: readonly ColumnSpec[];
  readonly trigger:
    | "none"
    | "rewrite-new"
    | "same-row"
    | "other-table"
    | "set-context"
    | "before-other"
    | "veto"
    | "rule-also"
    | "rule-instead"
    | "deferred";
  /** Of a child's foreign key. */
  readonly action:
    | "cascade"
    | "restrict"
    | "set null"
    | "set default"
    | "no action deferrable initially deferred";
  readonly ignores: boolean;
}

export interface Scenario {
  readonly tables: readonly TableSpec[];
  readonly settings: readonly Setting[];
  readonly units: readonly Unit[];
}

export interface Setting {
  readonly by: "session" | "role" | "database";
  readonly name: string;
  readonly value: string;
}

const pick = fc.nat(9999);

function op<K extends OpKind>(kinds: readonly K[]): fc.Arbitrary<Op> {
  return fc.record({ kind: fc.constantFrom(...kinds), picks: fc.tuple(pick, pick, pick, pick, pick, pick) });
}

const write = op(WRITES);
const inTransaction = fc.oneof(
  { arbitrary: write, weight: 8 },
  { arbitrary: op(CONTEXTS), weight: 3 },
  { arbitrary: op(ALTERATIONS), weight: 1 },
);

const step: fc.Arbitrary<Step> = fc.oneof(
  { arbitrary: inTransaction, weight: 6 },
  {
    arbitrary: fc.record({
      savepoint: fc.array(inTransaction, { minLength: 1, maxLength: 3 }),
      isUndone: fc.boolean(),
    }),
    weight: 1,
  },
);

const unit: fc.Arbitrary<Unit> = fc.oneof(
  {
    arbitrary: fc.record({
      kind: fc.constant("transaction" as const),
      steps: fc.array(step, { minLength: 1, maxLength: 6 }),
      isPrepared: fc.boolean(),
      end: fc.constantFrom<("commit" | "rollback" | "two-phase" | "two-phase-late")[]>(
        "commit",
        "commit",
        "commit",
        "commit",
        "rollback",
        "two-phase",
        "two-phase-late",
      ),
    }),
    weight: 5,
  },
  {
    arbitrary: fc.record({ kind: fc.constant("statement" as const), op: write, isPrepared: fc.boolean() }),
    weight: 5,
  },
  {
    arbitrary: fc.record({
      kind: fc.constant("several" as const),
      ops: fc.array(fc.oneof({ arbitrary: write, weight: 3 }, { arbitrary: op(CONTEXTS), weight: 1 }), {
        minLength: 2,
        maxLength: 4,
      }),
    }),
    weight: 1,
  },
  { arbitrary: fc.record({ kind: fc.constant("alteration" as const), op: op(ALTERATIONS) }), weight: 2 },
  { arbitrary: fc.record({ kind: fc.constant("vacuum" as const), pick }), weight: 1 },
);

const column: fc.Arbitrary<ColumnSpec> = fc.record({
  name: fc.constantFrom(...COLUMN_NAMES),
  type: fc.constantFrom(...Object.keys(COLUMN_TYPES)),
  wrap: fc.constantFrom<Wrap[]>(
    "none",
    "none",
    "none",
    "none",
    "array",
    "domain",
    "domains",
    "domain-array",
    "composite",
    "composites",
    "deep",
  ),
  generated: fc.constantFrom("no", "no", "no", "no", "no", "no", "stored", "virtual"),
});

const table: fc.Arbitrary<TableSpec> = fc.record({
  kind: fc.constantFrom<TableSpec["kind"][]>(
    "plain",
    "plain",
    "plain",
    "composite-key",
    "no-key",
    "list-partitioned",
    "list-partitioned",
    "hash-partitioned",
    "sub-partitioned",
    "inherited",
    "child",
    "child",
    "unlogged",
  ),
  key: fc.oneof(
    { arbitrary: fc.constant("int4"), weight: 3 },
    {
      arbitrary: fc.constantFrom(...Object.keys(COLUMN_TYPES).filter((name) => COLUMN_TYPES[name]?.isKey)),
      weight: 1,
    },
  ),
  identity: fc.constantFrom("no", "no", "no", "always", "default"),
  columns: fc.uniqueArray(column, { minLength: 1, maxLength: 4, selector: (c) => c.name }),
  trigger: fc.oneof(
    { arbitrary: fc.constant("none" as const), weight: 6 },
    {
      arbitrary: fc.constantFrom<TableSpec["trigger"][]>(
        "rewrite-new",
        "same-row",
        "other-table",
        "set-context",
        "before-other",
        "veto",
        "rule-also",
        "rule-instead",
        "deferred",
      ),
      weight: 4,
    },
  ),
  action: fc.constantFrom(
    "cascade",
    "cascade",
    "restrict",
    "set null",
    "set default",
    "no action deferrable initially deferred",
  ),
  ignores: fc.integer({ min: 0, max: 9 }).map((n) => n === 9),
});

/** Tables, and what is done to them. */
export const scenario: fc.Arbitrary<Scenario> = fc.record({
  tables: fc.array(table, { minLength: 1, maxLength: 3 }),
  settings: fc.oneof(
    { arbitrary: fc.constant([]), weight: 1 },
    {
      arbitrary: fc.array(
        fc.record({
          by: fc.constantFrom("session", "role", "database"),
          setting: fc.constantFrom(...SETTINGS),
        })
          .map(({ by, setting: [name, value] }): Setting => ({ by, name, value })),
        { minLength: 1, maxLength: 2 },
      ),
      weight: 1,
    },
  ),
  units: fc.array(unit, { minLength: 2, maxLength: 9 }),
});
