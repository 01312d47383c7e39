import { BemiError } from "../../errors.ts";
import { mapNumbers } from "../../json-numbers.ts";
import { requireDefined } from "../defined.ts";
import { containedJson } from "../filter.ts";
import { type Key, keyText } from "../key.ts";
import { timeText } from "../moment.ts";
import { readTransactionName } from "../transaction-name.ts";
import { changeId } from "../change-id.ts";

/**
 * What to revert: one change; one row, back to a time; a transaction; everything whose context contains something (a
 * user, a request, a deploy), which is JSON text where numbers must be exact; a table, back to a time.
 */
export type RevertUnit =
  | { readonly change: string }
  | { readonly table: string; readonly key: Key; readonly to: Date | string }
  | { readonly transaction: TransactionId }
  | { readonly context: Readonly<Record<string, unknown>> | string }
  | { readonly table: string; readonly to: Date | string };

/**
 * The `transaction_id` of a change; where that is not enough, the `key` of a group by transaction, or the change's source
 * and the LSN of its commit.
 */
export type TransactionId =
  | string
  | number
  | bigint
  | { readonly source: number | string; readonly commitLsn: string };

/** A condition on `changes` as `c`, its parameters from `$1` on. */
export interface UnitCondition {
  readonly where: string;
  readonly parameters: readonly string[];
}

/**
 * The condition that a unit's changes meet. Those of a row are found through the keys that it had, later.
 *
 * @throws {BemiError} `usage`
 */
export function unitCondition(unit: RevertUnit): UnitCondition {
  if ("change" in unit && isText(unit.change)) {
    return { where: "c.id = $1::text::uuid", parameters: [changeId(unit.change)] };
  }
  if ("transaction" in unit) return transactionCondition(unit.transaction);
  if ("context" in unit && (isObject(unit.context) || isText(unit.context))) {
    const context = containedJson("context", unit.context);
    if (Object.keys(plainContext(context)).length === 0) {
      throw new BemiError("usage", "An empty context would revert everything", {
        hint: 'Say what the changes have in common, such as {"request_id": "…"}.',
      });
    }
    return { where: "c.context @> $1::text::jsonb", parameters: [context] };
  }
  if (
    "table" in unit && "to" in unit && isText(unit.table) && (!("key" in unit) || isText(keyText(unit.key)))
  ) {
    const [table = "", ...schema] = unit.table.split(".").reverse();
    return {
      where:
        `c."table" = $1::text and ($2::text = '' or c.schema = $2::text) and c.committed_at > $3::text::timestamptz`,
      parameters: [table, schema.reverse().join("."), timeText(unit.to)],
    };
  }
  throw noUnit();
}

/** What the context of a revert says of it, under `reverts`: plain JSON. */
export function describeUnit(unit: RevertUnit): Readonly<Record<string, unknown>> {
  requireUnit(unit);
  const described: Record<string, unknown> = { ...unit };
  if ("to" in unit) described.to = timeText(unit.to);
  if ("context" in unit && isText(unit.context)) described.context = plainContext(unit.context);
  if ("key" in unit) described.key = keyText(unit.key);
  if ("transaction" in unit && typeof unit.transaction !== "object") {
    described.transaction = String(unit.transaction);
  }
  return described;
}

/**
 * A key that is there but undefined must not make it the whole table.
 *
 * @throws {BemiError} `usage`
 */
export function requireUnit(unit: RevertUnit): void {
  if (isObject(unit)) requireDefined(unit, Object.keys(unit), "The unit's");
  else throw noUnit();
}

// What JavaScript would round stays text.
function plainContext(json: string): object {
  try {
    const context: unknown = JSON.parse(
      mapNumbers(json, (number) => String(Number(number)) === number ? number : `"${number}"`),
    );
    if (isObject(context)) return context;
  } catch {
    // Is none either.
  }
  throw noUnit();
}

function noUnit(): BemiError {
  return new BemiError("usage", "There is no such unit to revert", {
    hint: "Pass { change }, { transaction }, { context }, { table, key, to } or { table, to }.",
  });
}

function transactionCondition(transaction: TransactionId): UnitCondition {
  const isPlace = typeof transaction === "object" && transaction !== null;
  const name = readTransactionName(
    isPlace ? `${transaction.source}/${transaction.commitLsn}` : String(transaction),
  );
  const { id, source, commitLsn } = name ?? {};
  if (source !== undefined && commitLsn !== undefined) {
    return {
      // By triggers each statement has an LSN of its own, and any of them names the transaction.
      where:
        `c.source_id = $1::text::integer and c.transaction_id in (select t.transaction_id from "bemi".changes t
            where t.source_id = $1::text::integer and t.commit_lsn = $2::text::pg_lsn)
          and (c.commit_lsn = $2::text::pg_lsn or exists (select from "bemi".sources s where s.id = c.source_id and s.capture = 'trigger'))`,
      parameters: [source, commitLsn],
    };
  }
  if (id !== undefined && !isPlace) {
    // The WAL has the lower half of the number that the server counts.
    const half = BigInt(id) <= 0xffff_ffffn ? "" : ` or c.transaction_id = $1::text::bigint & 4294967295
      and exists (select from "bemi".sources s where s.id = c.source_id and s.capture = 'wal')`;
    return {
      where: `(c.transaction_id = $1::text::bigint${half})${
        source === undefined ? "" : " and c.source_id = $2::text::integer"
      }`,
      parameters: source === undefined ? [id] : [id, source],
    };
  }
  throw new BemiError("usage", "This is no transaction", {
    hint: "Pass the transaction_id of a change, the key of a group by transaction, or { source, commitLsn }.",
  });
}

const isText = (value: unknown): value is string => typeof value === "string" && value !== "";

const isObject = (value: unknown): value is object =>
  typeof value === "object" && value !== null && !Array.isArray(value);
