import { differences, type Image, imageJson, isSame } from "./image.ts";
import { byPosition, type LoggedChange, type UnitLog } from "./log.ts";

/** What became of one row through a unit, and since. */
export interface RowStory {
  readonly schema: string;
  readonly table: string;
  /** Before the unit; `undefined` where there was no such row. */
  readonly initial: Image | undefined;
  readonly initialKey: string | null;
  /** As the unit left it; `undefined` where it was gone. */
  readonly left: Image | undefined;
  /** As the log has it today; `undefined` where it is gone. */
  readonly current: Image | undefined;
  readonly currentKey: string | null;
  /** The columns that the unit wrote in a row that stayed, with their values before. */
  readonly restored: Image;
  /** Images that the row had in between. */
  readonly between: readonly Image[];
  readonly own: readonly string[];
  /** What others did to it from the unit's first change on. */
  readonly foreign: readonly LoggedChange[];
  /** Whether others changed it between two changes of the unit. */
  readonly isInterleaved: boolean;
  /** Whether the unit deleted it and made it again. */
  readonly isReborn: boolean;
}

/** Rows that a TRUNCATE took away, by its id. */
export type Truncated = ReadonlyMap<
  string,
  readonly { readonly key: string | null; readonly image: Image }[]
>;

type Draft = { -readonly [K in keyof RowStory]: RowStory[K] } & {
  restored: Map<string, string>;
  between: Image[];
  own: string[];
  foreign: LoggedChange[];
  /** The transaction that gave it the key that it has. */
  movedBy: string | undefined;
};

/**
 * Follows each row that a unit touched through its changes and those that came since. A row that was deleted and then
 * made again under the same key counts as one that stayed.
 */
export function rowStories({ own, foreign }: UnitLog, truncated: Truncated = new Map()): RowStory[] {
  const stories = new Set<Draft>();
  const tables = new Map<string, Slots>();
  const isOwn = new Set(own.map(({ id }) => id));
  for (const change of [...own, ...foreign].sort(byPosition)) {
    if (change.isGap || change.operation === "SNAPSHOT") continue;
    const name = JSON.stringify([change.schema, change.table]);
    const slots = tables.get(name) ?? newSlots();
    tables.set(name, slots);
    const isOwned = isOwn.has(change.id);
    const single = change.operation === "TRUNCATE"
      ? deletions(change, isOwned ? truncated.get(change.id) ?? [] : slots.rows())
      : [change];
    for (const one of single) {
      const story = follow(slots, one, isOwned);
      if (story) stories.add(story);
    }
  }
  return [...stories];
}

// A TRUNCATE as what it did to each row.
function deletions(
  change: LoggedChange,
  rows: readonly { readonly key: string | null; readonly image: Image }[],
): LoggedChange[] {
  return rows.map(({ key, image }) => ({
    ...change,
    operation: "DELETE",
    key,
    formerKey: null,
    before: image,
    after: new Map(),
  }));
}

/** Adds a change to the story of its row, which it may begin; changes by others begin none. */
function follow(slots: Slots, change: LoggedChange, isOwned: boolean): Draft | undefined {
  const isCreate = change.operation === "CREATE";
  const from = change.formerKey ?? change.key;
  let story = isCreate ? slots.gone(change.key) : slots.at(from, change);
  if (!story) {
    if (!isOwned) return undefined;
    story = begin(change, from);
  }
  if (!isCreate) slots.leave(story, from, change.before);
  advance(story, change, isOwned);
  if (change.operation === "DELETE") slots.bury(story, change.key);
  else slots.enter(story, change.key, change.after);
  return story;
}

function begin(change: LoggedChange, key: string | null): Draft {
  const initial = change.operation === "CREATE" ? undefined : change.before;
  return {
    schema: change.schema,
    table: change.table,
    initial,
    initialKey: key,
    left: initial,
    current: initial,
    currentKey: key,
    restored: new Map(),
    between: [],
    own: [],
    foreign: [],
    isInterleaved: false,
    isReborn: false,
    movedBy: undefined,
  };
}

function advance(story: Draft, change: LoggedChange, owned: boolean): void {
  const next = change.operation === "DELETE" ? undefined : change.after;
  if (owned) {
    if (story.foreign.length > 0) story.isInterleaved = true;
    // Of a row that was deleted in between, all that it was counts.
    const from = change.operation === "UPDATE" ? change.before : story.initial ?? new Map<string, string>();
    if (next) {
      for (const [column, value] of differences(from, next)) {
        if (!story.restored.has(column)) story.restored.set(column, value);
      }
    }
    story.own.push(change.id);
    story.left = next;
    if (change.operation === "CREATE" && story.initial) story.isReborn = true;
  } else {
    story.foreign.push(change);
  }
  if (story.current && change.operation !== "CREATE") story.between.push(story.current);
  story.current = next;
  if (next) story.currentKey = change.key;
  if (change.formerKey !== null) story.movedBy = change.transaction;
}

interface Slots {
  at(key: string | null, change: LoggedChange): Draft | undefined;
  gone(key: string | null): Draft | undefined;
  leave(story: Draft, key: string | null, image: Image): void;
  enter(story: Draft, key: string | null, image: Image): void;
  bury(story: Draft, key: string | null): void;
  /** What is alive. */
  rows(): { key: string | null; image: Image }[];
}

// Rows of a table by where they are: by key, or where there is none, by all that they hold.
function newSlots(): Slots {
  const alive = new Map<string, Draft[]>();
  const dead = new Map<string, Draft>();
  const slot = (key: string | null, image: Image): string => key === null ? imageJson(image) : `=${key}`;
  return {
    at: (key, { before, transaction }) => {
      const there = alive.get(slot(key, before)) ?? [];
      // Where a statement shifts keys, the next row may come to a key before the one that had it is told of.
      return there.find(({ current }) => current && isSame(current, before)) ??
        there.find(({ movedBy }) => movedBy !== transaction);
    },
    gone: (key) => {
      const story = key === null ? undefined : dead.get(key);
      if (key !== null) dead.delete(key);
      return story;
    },
    leave: (story, key, image) => {
      const place = slot(key, image);
      const rest = (alive.get(place) ?? []).filter((other) => other !== story);
      if (rest.length > 0) alive.set(place, rest);
      else alive.delete(place);
    },
    enter: (story, key, image) => {
      const place = slot(key, image);
      alive.set(place, [...alive.get(place) ?? [], story]);
    },
    bury: (story, key) => {
      if (key !== null) dead.set(key, story);
    },
    rows: () =>
      [...alive.values()].flat().map(({ currentKey: key, current }) => ({
        key,
        image: current ?? new Map(),
      })),
  };
}
