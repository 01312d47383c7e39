import { type Change, diff } from "../history/mod.ts";
import { mapNumbers } from "../json-numbers.ts";
import type { Io } from "./io.ts";
import { paint } from "./paint.ts";
import { printable } from "./printable.ts";

/** A change as a heading and what it made different, line by line: what was with a minus, what is with a plus. */
export function changeText(json: string, io: Io): string {
  const change = JSON.parse(mapNumbers(json, (number) => JSON.stringify(NUMBER + number))) as Change;
  const key = change.former_primary_key === null
    ? change.primary_key ?? ""
    : `${change.former_primary_key} -> ${change.primary_key ?? ""}`;
  const { SQL: _, db: __, ...context } = change.context;
  const who = Object.keys(context).length > 0 ? `  ${show(context)}` : "";
  const heading = paint(io, "bold", printable(`${change.operation} ${tableName(change)} ${key}`.trimEnd()));
  const time = `${change.committed_at.slice(0, 26).replace("T", " ")}+00`;
  const lines = Object.entries(diff<Record<string, unknown>>(change.before, change.after)).flatMap((
    [name, found],
  ) => [
    ...("old" in (found ?? {}) ? [paint(io, "red", `  - ${name}: ${show(found?.old)}`)] : []),
    ...("new" in (found ?? {}) ? [paint(io, "green", `  + ${name}: ${show(found?.new)}`)] : []),
  ]);
  return `${[`${time}  ${heading}${who}`, ...lines].join("\n")}\n`;
}

/** A table as psql's messages name it: with its schema where that is not the usual one. */
export function tableName({ schema, table }: Pick<Change, "schema" | "table">): string {
  return schema === "public" ? table : `${schema}.${table}`;
}

// Numbers stay as the server wrote them, however long: marked within, and shown without the mark.
const NUMBER = "\u0000";

function show(value: unknown): string {
  return printable((JSON.stringify(value) ?? "").replace(/"\\u0000([^"]*)"/g, "$1"));
}
