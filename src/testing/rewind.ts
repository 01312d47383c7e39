import { connect } from "../database/connect.ts";
import type { Database, DatabaseLike } from "../database/port.ts";
import { SQLSTATE, sqlstateOf } from "../database/sqlstate.ts";
import { BemiError } from "../errors.ts";
import { type Image, isSame } from "../history/revert/image.ts";
import { findRows } from "../history/revert/live.ts";
import { changesSince, type LoggedChange } from "../history/revert/log.ts";
import { statements } from "../history/revert/statements.ts";
import type { RowStep } from "../history/revert/steps.ts";
import { rowStories, type RowStory } from "../history/revert/stories.ts";
import { type TableFacts, tableFacts, tableId } from "../history/revert/tables.ts";
import { truncatedRows } from "../history/revert/truncated.ts";
import { type Mark, moveMark, placeOf } from "./mark.ts";
import { endOfLog } from "./place.ts";
import { restoreSequences } from "./sequences.ts";

/**
 * Brings the database back to the state of a mark: its rows, and its sequences. Costs as much as was changed since.
 * The application's triggers and foreign keys sleep meanwhile (`session_replication_role`), so that the state is exactly
 * what it was; the log goes on, and so a later mark stays one to go {@linkcode forward} to.
 *
 * @throws {BemiError} `privilege_missing`; `conflict` where rows are not as the log has them, or it does not know them
 * @example
 * ```ts
 * import { PGlite } from "@electric-sql/pglite";
 * import { mark, rewind } from "@bemi/core/testing";
 * const db = await PGlite.create("./test-data");
 * const seeded = await mark(db);
 * await db.exec("DELETE FROM todos");
 * await rewind(db, seeded); // they are there again
 * ```
 */
export async function rewind(db: DatabaseLike, mark: Mark): Promise<void> {
  const { schema } = mark;
  const place = placeOf(mark);
  const end = await connect(db).transaction(async (tx) => {
    await sleepTriggers(tx);
    const changes = await changesSince(tx, schema, place);
    if (changes.length > 0) {
      await tx.query("select set_config('bemi.context', $1::text, true)", ['{"testing": "rewind"}']);
      await undo(tx, schema, changes);
    }
    await restoreSequences(tx, mark.sequences);
    return await endOfLog(tx, schema);
  });
  moveMark(mark, end);
}

/**
 * Brings the database to the state of a mark that was made after the one it was rewound to.
 *
 * @throws {BemiError} as {@linkcode rewind}
 * @example
 * ```ts
 * import { PGlite } from "@electric-sql/pglite";
 * import { forward, mark, rewind } from "@bemi/core/testing";
 * const db = await PGlite.create("./test-data");
 * const seeded = await mark(db);
 * await db.exec("DELETE FROM todos");
 * const empty = await mark(db);
 * await rewind(db, seeded);
 * await forward(db, empty);
 * ```
 */
export function forward(db: DatabaseLike, mark: Mark): Promise<void> {
  return rewind(db, mark);
}

async function sleepTriggers(tx: Database): Promise<void> {
  try {
    await tx.query("select set_config('session_replication_role', 'replica', true)");
  } catch (error) {
    if (sqlstateOf(error) !== SQLSTATE.insufficientPrivilege) throw error;
    throw new BemiError("privilege_missing", "This role may not let triggers and foreign keys sleep", {
      hint: "Test as a superuser, or: grant set on parameter session_replication_role to the role.",
      cause: error,
    });
  }
}

async function undo(tx: Database, schema: string, changes: readonly LoggedChange[]): Promise<void> {
  const tables = new Map<string, TableFacts | undefined>();
  for (const change of changes) {
    const id = tableId(change);
    if (!tables.has(id)) tables.set(id, await tableFacts(tx, schema, change));
  }
  const log = { own: changes, foreign: [] };
  const { truncated, conflicts } = await truncatedRows(tx, schema, log, tables);
  if (conflicts[0]) {
    throw new BemiError("conflict", `Cannot rewind: ${conflicts[0].message}`, {
      hint: "Track before you seed, or record what is there: bemi track --baseline",
    });
  }
  const stories = new Map<string, RowStory[]>();
  for (const story of rowStories(log, truncated)) {
    const { initial, current } = story;
    if (initial === current || initial && current && isSame(initial, current)) continue;
    const list = stories.get(tableId(story));
    if (list) list.push(story);
    else stories.set(tableId(story), [story]);
  }
  for (const [id, own] of stories) {
    const table = tables.get(id);
    if (table) await undoTable(tx, schema, table, own);
  }
}

// All that is there goes, all that was there comes: in this order no unique index minds.
async function undoTable(
  tx: Database,
  schema: string,
  table: TableFacts,
  stories: readonly RowStory[],
): Promise<void> {
  const there = stories.filter(({ current }) => current !== undefined);
  const images = there.map(({ current }): Image => current ?? new Map());
  // Without a key a row is found by what it holds.
  const rows = table.key.length > 0
    ? images.map((image) => ({ locator: "", image, differing: [] }))
    : await findRows(tx, schema, table, images.map((image) => ({ at: image, expected: image })), {
      lock: true,
    });
  const going = there.flatMap((story, n): RowStep[] =>
    rows[n] ? [{ operation: "DELETE", table, story, row: rows[n], values: new Map(), to: undefined }] : []
  );
  const coming = new Map<string, RowStep[]>();
  const settable = new Set(table.columns.filter(({ isGenerated }) => !isGenerated).map(({ name }) => name));
  for (const story of stories) {
    if (!story.initial) continue;
    const values = new Map([...story.initial].filter(([name]) => settable.has(name)));
    const columns = [...values.keys()].join();
    const step: RowStep = { operation: "INSERT", table, story, row: undefined, values, to: values };
    const list = coming.get(columns);
    if (list) list.push(step);
    else coming.set(columns, [step]);
  }
  const batches = [...(going.length > 0 ? [going] : []), ...coming.values()];
  let isAsLogged = going.length === there.length;
  for (const { sql, rows, count } of statements(batches)) {
    const [done] = await tx.query<{ count: string }>(sql, [rows]);
    isAsLogged &&= done?.count === String(count);
  }
  if (isAsLogged) return;
  throw new BemiError("conflict", `Cannot rewind: rows of ${table.name} are not as the log has them`, {
    hint: "They were changed while tracking was off: seed again, and mark.",
  });
}
