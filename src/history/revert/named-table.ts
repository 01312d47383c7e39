import { keyText } from "../key.ts";
import type { Database } from "../../database/port.ts";
import { BemiError } from "../../errors.ts";
import { inSchema } from "../../install/schema.ts";
import { isOtherwiseSpelled } from "../filter.ts";
import { type RevertUnit, unitCondition } from "./unit.ts";

/** A unit that is a table, or one of its rows, back to a time. */
export type TableUnit = RevertUnit & { readonly to: unknown };

interface Name {
  readonly schema: string;
  readonly table: string;
}

/**
 * Sees to it that a name is one table's: reverting `todos` must not take back another schema's todos too, and that there
 * is nothing to do has to mean more than a slip of the pen. A key of several columns is given as the log spells it.
 *
 * @throws {BemiError} `table_missing`, `usage`
 */
export async function requireOneTable(db: Database, schema: string, unit: TableUnit): Promise<RevertUnit> {
  const [table = "", of = ""] = unitCondition(unit).parameters;
  const key = "key" in unit && isOtherwiseSpelled(keyText(unit.key)) ? keyText(unit.key) : null;
  const found = await db.query<{ schema: string; key: string | null }>(
    inSchema(
      schema,
      `select schema, case when "bemi".has_wide_key(schema, $1::text) then $3::text::jsonb::text end as key
      from (select schema from "bemi".table_names where name = $1::text and ($2::text = '' or schema = $2::text)
        union select * from (select schema from "bemi".changes
          where "table" = $1::text and ($2::text = '' or schema = $2::text) limit 1) as logged) as named order by 1`,
    ),
    [table, of, key],
  );
  if (found.length === 1) return found[0]?.key ? { ...unit, key: found[0].key } : unit;
  const name = of === "" ? table : `${of}.${table}`;
  if (found.length === 0) {
    throw new BemiError("table_missing", `The log knows no table ${name}`, {
      hint: "Names are as the log has them, without quotes: bemi status lists what is tracked.",
    });
  }
  throw new BemiError("usage", `The log knows several tables that are called ${name}`, {
    hint: `Say which: ${found.map((one) => `${one.schema}.${table}`).join(", ")}.`,
  });
}

/** Tables with the name that had another at that time: what the log has under it is not among the unit's changes. */
export async function renamedSince(
  db: Database,
  schema: string,
  unit: TableUnit,
): Promise<(Name & { readonly former: string })[]> {
  const [table, of, to] = unitCondition(unit).parameters;
  return await db.query<Name & { readonly former: string }>(
    inSchema(
      schema,
      `select n.nspname as schema, c.relname as "table", pg_catalog.format('%s.%s', former.schema, former.name) as former
      from "bemi".tables t join pg_class c on c.oid = t.relation join pg_namespace n on n.oid = c.relnamespace
        cross join lateral (select * from "bemi".table_names o
          where o.table_id = t.id and (o.schema, o.name) <> (n.nspname, c.relname) order by o.named_at desc limit 1) as former
      where c.relname = $1::text and ($2::text = '' or n.nspname = $2::text)
        and exists (select from "bemi".table_names own
          where own.table_id = t.id and own.named_at > greatest(former.named_at, $3::text::timestamptz))`,
    ),
    [table ?? "", of ?? "", to ?? ""],
  );
}

/** Tables with the name that were tracked only later, or whose log is past the retention by now. */
export async function notReaching(
  db: Database,
  schema: string,
  unit: TableUnit,
): Promise<Name[]> {
  const [table, of, to] = unitCondition(unit).parameters;
  return await db.query<Name>(
    inSchema(
      schema,
      `select t.schema, t.name as "table" from "bemi".tracked_tables t
      where t.relation = t.root and t.name = $1::text and ($2::text = '' or t.schema = $2::text)
        and (t.tracked_at > $3::text::timestamptz
          or (select retention from "bemi".settings) < now() - $3::text::timestamptz)`,
    ),
    [table ?? "", of ?? "", to ?? ""],
  );
}
