import { currentContext, mergeContext, withContext } from "@bemi/core";
import { deepStrictEqual } from "node:assert/strict";
import type { AddTest } from "./add-tests.ts";

const pause = (): Promise<void> => new Promise((done) => setTimeout(done, 5));

export function contextTests(test: AddTest): void {
  test("overlapping contexts stay apart, and end with their scopes", async () => {
    const seen = await Promise.all([1, 2].map((user) =>
      withContext({ user }, async () => {
        await pause();
        mergeContext({ step: user * 10 });
        await pause();
        return await withContext({ nested: true }, async () => {
          await pause();
          return currentContext();
        });
      })
    ));
    deepStrictEqual(seen, [{ user: 1, step: 10, nested: true }, { user: 2, step: 20, nested: true }]);
    deepStrictEqual(currentContext(), undefined);
  });
}
