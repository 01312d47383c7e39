import { expect, inject, test } from "vitest";
import { FAULTS } from "./chaos/faults.ts";
import { chaos } from "./chaos/run.ts";

/** Between two faults, at least. */
const TRANSACTIONS = 15;

test.each(inject("servers").map(({ version }) => version))(
  "whatever fails on PostgreSQL %s, the log is what was committed, once and in order, with each one's own contexts",
  async (server) => {
    // Each kind once, and more of what is asked of a worker most.
    const faults = [
      ...Object.keys(FAULTS),
      ...Array.from({ length: 3 }, () => ["worker killed", "server stopped immediately"]).flat(),
    ];
    const failed: string[] = [];
    const result = await chaos({
      seed: 4,
      server,
      length: { faults, transactions: TRANSACTIONS },
      log: (line) => failed.push(line),
    });
    expect(result.problems).toEqual([]);
    expect(Object.keys(result.faults).sort(), failed.join("\n")).toEqual(Object.keys(FAULTS).sort());
    expect(result.faults).toMatchObject({ "worker killed": 4, "server stopped immediately": 4 });
    expect(result.transactions).toBeGreaterThanOrEqual(TRANSACTIONS * faults.length);
    // One for the slot that was dropped, with everything read.
    expect(result.gaps).toBeLessThanOrEqual(1);
  },
  15 * 60_000,
);
