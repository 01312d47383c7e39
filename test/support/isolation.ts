import { expect } from "vitest";
import { withContext } from "../../mod.ts";
import type { TestDatabase } from "./databases.ts";
import { seen } from "./todos.ts";

/** What requests do, in the words of one client. */
export interface Writer {
  insert(task: string): Promise<unknown>;
  complete(task: string): Promise<unknown>;
}

export interface IsolationClient extends Writer {
  /** An insert that the server refuses. */
  refused(task: string): Promise<unknown>;
  transaction(fn: (tx: Writer) => Promise<void>): Promise<unknown>;
}

const pause = (): Promise<void> => new Promise((done) => setTimeout(done, Math.random() * 5));

/**
 * 300 overlapping requests, half of them failing: every change has its own request's context, what failed left
 * nothing, and what nobody asked for has no context.
 */
export async function expectIsolation(database: TestDatabase, client: IsolationClient): Promise<void> {
  const results = await Promise.allSettled(
    Array.from({ length: 300 }, (_, user) =>
      withContext({ user_id: user }, async () => {
        const task = `t${user}`;
        await pause();
        switch (user % 4) {
          case 0:
            return await client.insert(task);
          case 1:
            return await client.transaction(async (tx) => {
              await tx.insert(task);
              await pause();
              await tx.complete(task);
            });
          case 2:
            return await client.refused(task);
          default:
            return await client.transaction(async (tx) => {
              await tx.insert(task);
              await pause();
              throw new Error("changed my mind");
            });
        }
      })),
  );
  const statuses = (kinds: number[]): Set<string> =>
    new Set(results.filter((_, user) => kinds.includes(user % 4)).map((result) => result.status));
  expect(statuses([0, 1])).toEqual(new Set(["fulfilled"]));
  expect(statuses([2, 3])).toEqual(new Set(["rejected"]));
  await Promise.all(Array.from({ length: 8 }, () => client.insert("nobody")));

  const changes = await seen(database.port);
  for (const { after, context } of changes) {
    expect(context.user_id).toBe(after.task === "nobody" ? undefined : Number(String(after.task).slice(1)));
  }
  const told = changes.map(({ operation, after }) => `${operation} ${after.task}`).sort();
  const expected = Array.from({ length: 300 }, (_, user) => {
    if (user % 4 === 0) return [`CREATE t${user}`];
    return user % 4 === 1 ? [`CREATE t${user}`, `UPDATE t${user}`] : [];
  }).flat();
  expect(told).toEqual([...expected, ...Array.from({ length: 8 }, () => "CREATE nobody")].sort());
}
