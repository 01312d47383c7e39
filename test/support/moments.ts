import { expect } from "vitest";
import { asOf } from "../../src/history/mod.ts";
import type { Database } from "../../src/database/port.ts";
import type { TestDatabase } from "./databases.ts";
import { SCHEMA as schema } from "./installation.ts";

/** A moment of the server's clock that no earlier and no later write shares. */
export async function clock(port: Database): Promise<string> {
  const read = async (): Promise<string> =>
    (await port.query<{ t: string }>("select clock_timestamp()::text as t"))[0]?.t ?? "";
  const time = await read();
  while (await read() === time);
  return time;
}

/** What a table held at moments that have a name, for as-of to be held to. */
export interface Moments {
  note(name: string): Promise<void>;
  /**
   * Each moment's name, with `known` where as-of gives exactly the rows that were noted, or else the error's message.
   * Fails on any other rows, and on an error that is no `history_unknown` with a hint of when the rows are known from.
   */
  told(): Promise<Record<string, string>>;
}

/** `columns` are what is compared, where the table's change in between. */
export function moments({ db, port }: TestDatabase, table: string, columns = "*"): Moments {
  const noted = new Map<string, { time: string; rows: string[] }>();
  const sorted = (rows: readonly object[]): string[] =>
    rows.map((row) => JSON.stringify(Object.entries(row).sort(([a], [b]) => a < b ? -1 : 1))).sort();
  const select = (from: string): Promise<{ row: object }[]> =>
    port.query(`select to_jsonb(r) as row from (select ${columns} from ${from}) as r`);
  return {
    note: async (name) => {
      const rows = sorted((await select(table)).map(({ row }) => row));
      noted.set(name, { time: await clock(port), rows });
    },
    told: async () => {
      const told: Record<string, string> = {};
      for (const [name, { time, rows }] of noted) {
        try {
          const seen = await asOf(db, table, time, { schema, wait: false });
          const names = columns === "*" ? undefined : columns.split(", ");
          const picked = seen.map((row) =>
            names ? Object.fromEntries(names.map((column) => [column, row[column]])) : row
          );
          expect(sorted(picked), name).toEqual(rows);
          told[name] = "known";
        } catch (error) {
          const { code, message, hint } = error as { code?: string; message: string; hint?: string };
          if (code !== "history_unknown") throw error;
          expect(hint, name).toMatch(/known from (20\d\d-|the next TRUNCATE)/);
          told[name] = message;
        }
      }
      return told;
    },
  };
}
