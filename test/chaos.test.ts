import { expect, inject, test } from "vitest";
import { FAULTS } from "./chaos/faults.ts";
import { chaos } from "./chaos/run.ts";

test.each(inject("servers").map(({ version }) => version))(
  "whatever fails on PostgreSQL %s, the log is what was committed, once and in order, with each one's own contexts",
  async (server) => {
    // Each kind once, and more of what is asked of a worker most.
    const faults = [
      ...Object.keys(FAULTS),
      ...Array.from({ length: 4 }, () => ["worker killed", "server stopped immediately"]).flat(),
    ];
    const failed: string[] = [];
    const result = await chaos({
      seed: 4,
      server,
      length: { faults, transactions: 30 },
      log: (line) => failed.push(line),
    });
    expect(result.problems).toEqual([]);
    expect(failed).toEqual([]);
    expect(result.faults).toMatchObject({ "worker killed": 5, "server stopped immediately": 5 });
    expect(result.transactions).toBeGreaterThanOrEqual(30 * faults.length);
    // One for the slot that was dropped, with everything read.
    expect(result.gaps).toBeLessThanOrEqual(1);
  },
  15 * 60_000,
);
