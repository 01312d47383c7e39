import { expect } from "vitest";
import { withContext } from "../../mod.ts";
import type { TestDatabase } from "./databases.ts";
import { expectedChanges, OUTCOME, overlappingRequests, type RequestClient } from "./requests.ts";
import { seen } from "./todos.ts";

/** Overlapping requests never mix, through this client. */
export async function expectIsolation(database: TestDatabase, client: RequestClient): Promise<void> {
  expect(await overlappingRequests(client, withContext)).toBe(OUTCOME);
  await expectIsolated(database);
}

/**
 * After overlapping requests: every change has its own request's context, what failed left nothing, and what nobody
 * asked for has no context.
 */
export async function expectIsolated(database: TestDatabase): Promise<void> {
  const changes = await seen(database.port);
  const told = changes.map(({ operation, after, context }) =>
    `${operation} ${after.task} ${context.user_id ?? "-"}`
  );
  expect(told.sort()).toEqual(expectedChanges());
}
