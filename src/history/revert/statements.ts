import { quoteIdentifier, quoteLiteral, quoteSchema } from "../../identifiers.ts";
import { imageJson, without } from "./image.ts";
import type { RowStep } from "./steps.ts";
import { type ColumnFacts, columnsNamed, onlyRows, recordColumns, type TableFacts } from "./tables.ts";

/** One statement for several rows. Its values are one parameter, a JSON array. */
export interface Statement {
  readonly sql: string;
  readonly rows: string;
  readonly count: number;
}

/** A statement for each batch: steps of one kind, for one table and the same columns. */
export function statements(batches: readonly (readonly RowStep[])[]): Statement[] {
  return batches.map((group) => {
    const rows = `[${group.map((step) => `{${members(step).join(", ")}}`).join(", ")}]`;
    return { sql: counted(dml(group, "$1::text::jsonb")), rows, count: group.length };
  });
}

/** The same as text to be pasted, with literals; each statement fails where a row is no longer as it was. */
export function script(batches: readonly (readonly RowStep[])[], schema: string): string[] {
  const bemi = quoteSchema(schema);
  return batches.map((group) => {
    const [first] = group;
    const isGuarded = first?.operation !== "INSERT";
    const rows = group.map((step) => {
      const was = isGuarded && step.row
        ? [`"was": ${imageJson(without(step.row.image, step.table.ignored))}`]
        : [];
      return `  {${[...members(step), ...was].join(", ")}}`;
    });
    const sql = dml(
      group,
      `${quoteLiteral(`[\n${rows.join(",\n")}\n]`)}::jsonb`,
      isGuarded ? { bemi, oid: `${quoteLiteral(first?.table.name ?? "")}::regclass` } : undefined,
    );
    return `with bemi_done as (\n${sql}\nreturning 1)\nselect ${bemi}.expect_rows(${group.length}, count(*)) from bemi_done;\n`;
  });
}

function counted(sql: string): string {
  return `with bemi_done as (${sql} returning 1) select count(*)::text as count from bemi_done`;
}

// The row's key as k1, k2, …, and its values as v1, v2, … in the order of their names.
function members({ operation, table, row, values }: RowStep): string[] {
  const key = operation === "INSERT" || !row
    ? []
    : table.key.length > 0
    ? table.key.map((name, i) => `"k${i + 1}": ${row.image.get(name) ?? "null"}`)
    : row.locator.split("(").map((part, i) => `"k${i + 1}": "${i === 0 ? part : `(${part}`}"`);
  return [...key, ...sorted(values).map((name, i) => `"v${i + 1}": ${values.get(name) ?? "null"}`)];
}

const sorted = (values: ReadonlyMap<string, string>): string[] => [...values.keys()].sort();

function dml(
  group: readonly RowStep[],
  rows: string,
  guard?: { readonly bemi: string; readonly oid: string },
): string {
  const [first] = group;
  if (!first) return "";
  const { operation, table, values } = first;
  const columns = columnsNamed(table, sorted(values));
  const names = columns.map(({ name }) => quoteIdentifier(name));
  if (operation === "INSERT") {
    const chosen = columns.map((_, i) => `bemi_new.v${i + 1}`).join(", ");
    return `insert into ${table.name} (${names.join(", ")}) overriding system value
select ${chosen} from jsonb_to_recordset(${rows}) as bemi_new (${recordColumns("v", columns)})`;
  }
  const record = [
    recordColumns("k", keyColumns(table)),
    ...(columns.length > 0 ? [recordColumns("v", columns)] : []),
    ...(guard ? ["was jsonb"] : []),
  ].join(", ");
  const source = `jsonb_to_recordset(${rows}) as bemi_new (${record})`;
  const where = keyColumns(table).map(({ name }, i) =>
    `bemi_row.${quoteIdentifier(name)} = bemi_new.k${i + 1}`
  );
  if (guard) {
    where.push(`${guard.bemi}.differing_columns(${guard.oid}, to_jsonb(bemi_row.*), bemi_new.was) = '{}'`);
  }
  if (operation === "DELETE") {
    return `delete from ${onlyRows(table)} as bemi_row using ${source}\nwhere ${where.join(" and ")}`;
  }
  return `update ${onlyRows(table)} as bemi_row set ${
    names.map((name, i) => `${name} = bemi_new.v${i + 1}`).join(", ")
  }
from ${source}\nwhere ${where.join(" and ")}`;
}

// A row without a key is found by where it lies, as long as it is locked.
function keyColumns(table: TableFacts): ColumnFacts[] {
  if (table.key.length > 0) return columnsNamed(table, table.key);
  const common = {
    isRequired: false,
    isNullable: false,
    isGenerated: false,
    isAlwaysIdentity: false,
    holdsJson: false,
  };
  return [{ name: "tableoid", type: "oid", ...common }, { name: "ctid", type: "tid", ...common }];
}
