import type { Database } from "../../database/port.ts";
import { inSchema } from "../../install/schema.ts";

/** A column as it is today. */
export interface ColumnFacts {
  readonly name: string;
  /** As in SQL, qualified. */
  readonly type: string;
  /** Whether a new row has to name it: it is NOT NULL, without a default. */
  readonly isRequired: boolean;
  readonly isNullable: boolean;
  readonly isGenerated: boolean;
  readonly isAlwaysIdentity: boolean;
  /** Whether its values hold something that jsonb cannot keep as it was written. */
  readonly holdsJson: boolean;
}

/** A unique index without a condition or expressions; the primary key's comes first. */
export interface UniqueFacts {
  readonly name: string;
  readonly qualifiedName: string;
  readonly isKey: boolean;
  readonly isDeferrable: boolean;
  readonly columns: readonly string[];
}

/** A table at one end of a foreign key. */
export interface KeyEnd {
  readonly schema: string;
  readonly table: string;
  /** As in SQL, qualified. */
  readonly name: string;
  readonly isPartitioned: boolean;
}

/** What a foreign key does when the row that it points at goes: `a`, `r`, `c`, `n` or `d`, as in pg_constraint. */
export type KeyAction = "a" | "r" | "c" | "n" | "d";

export interface ForeignKeyFacts {
  readonly name: string;
  readonly qualifiedName: string;
  readonly isDeferrable: boolean;
  readonly onDelete: KeyAction;
  readonly onUpdate: KeyAction;
  readonly child: KeyEnd;
  readonly parent: KeyEnd;
  readonly childColumns: readonly string[];
  readonly parentColumns: readonly string[];
}

/** A table of the log as the catalog has it today. */
export interface TableFacts {
  readonly schema: string;
  readonly table: string;
  readonly oid: string;
  /** As in SQL, qualified. */
  readonly name: string;
  readonly isPartitioned: boolean;
  /** `null` where it is no longer tracked. */
  readonly capture: "trigger" | "wal" | null;
  readonly ignored: readonly string[];
  readonly masked: readonly string[];
  readonly trackedAt: string | null;
  /** The columns of its primary key. */
  readonly key: readonly string[];
  readonly columns: readonly ColumnFacts[];
  readonly uniques: readonly UniqueFacts[];
  /** Those of it, and those that point at it. */
  readonly foreignKeys: readonly ForeignKeyFacts[];
}

/** Asks the catalog for a table by the name that the log has; `undefined` where there is none any more. */
export async function tableFacts(
  db: Database,
  schema: string,
  name: { readonly schema: string; readonly table: string },
): Promise<TableFacts | undefined> {
  const [row] = await db.query<{ facts: string | null }>(
    inSchema(schema, 'select "bemi".table_facts($1::text, $2::text)::text as facts'),
    [name.schema, name.table],
  );
  return row?.facts ? JSON.parse(row.facts) as TableFacts : undefined;
}

/** One name for a table, to look it up by. */
export function tableId({ schema, table }: { readonly schema: string; readonly table: string }): string {
  return JSON.stringify([schema, table]);
}

/** The table's own rows, as they stand in a FROM: with those of its partitions, without those of other tables. */
export function onlyRows(
  { name, isPartitioned }: { readonly name: string; readonly isPartitioned: boolean },
): string {
  return isPartitioned ? name : `only ${name}`;
}

/** Columns of a record that JSON is read as: `k1 bigint, k2 text`. */
export function recordColumns(prefix: string, columns: readonly ColumnFacts[]): string {
  return columns.map(({ type }, i) => `${prefix}${i + 1} ${type}`).join(", ");
}

/** Columns by their names. @throws {Error} where there is none: the caller has checked */
export function columnsNamed(table: TableFacts, names: readonly string[]): ColumnFacts[] {
  return names.map((name) => {
    const found = table.columns.find((column) => column.name === name);
    if (!found) throw new Error(`no column ${name}`);
    return found;
  });
}
