import postgres from "postgres";
import { install, track } from "../../src/install/mod.ts";
import { createSlot, runWorker } from "../../src/worker/mod.ts";
import { startServer } from "../support/servers.ts";
import { CLIENTS, type Entry, NAMES, startClient, TABLES } from "./clients.ts";
import { openDeadline, pause, WaitedInVain } from "./deadline.ts";
import { FAULTS, type World } from "./faults.ts";
import { type Fleet, openFleet } from "./fleet.ts";
import { killSteadily } from "./kill-steadily.ts";
import { verify } from "./oracles.ts";
import { openProxy } from "./proxy.ts";
import { moveLog, openQuota } from "./quota.ts";
import { random } from "./random.ts";
import { atRest } from "./rest.ts";

export interface ChaosOptions {
  readonly seed: number;
  readonly server: string;
  /**
   * How long: for some minutes, with faults at random and at most `pause` milliseconds between them, while so many
   * workers are killed besides; or until certain faults were made, in an order that the seed gives, with so many
   * transactions between them.
   */
  readonly length:
    | { readonly minutes: number; readonly pause: number; readonly kills: number }
    | { readonly faults: readonly string[]; readonly transactions: number };
  /**
   * Milliseconds between two transactions of a client, on average.
   * @default 0
   */
  readonly lull?: number;
  readonly log: (line: string) => void;
}

export interface ChaosResult {
  readonly faults: Readonly<Record<string, number>>;
  /** Workers that were killed, by what they did. */
  readonly killed: Fleet["killed"];
  readonly transactions: number;
  readonly changes: number;
  readonly gaps: number;
  /** Whether the log had a disk of its own to be filled. */
  readonly hasQuota: boolean;
  readonly problems: readonly string[];
}

/** What a run may take beyond its minutes before it is given up. */
const GRACE = 10 * 60_000;

/** Random load and random faults; then what the oracles say, or what did not come to its end. */
export async function chaos(
  { seed, server: version, length, lull = 0, log }: ChaosOptions,
): Promise<ChaosResult> {
  const server = await startServer(version, [
    "fsync=off",
    "synchronous_commit=off",
    "max_connections=60",
    "wal_sender_timeout=3s",
    "max_wal_size=4GB",
  ]);
  const disk = openQuota();
  try {
    const { hostname, port } = new URL(server.url());
    using proxy = await openProxy(() => ({ host: hostname, port: Number(port) }));
    const problems: string[] = [];
    let isRunning = true;
    using fleet = openFleet({
      url: `postgres://postgres@127.0.0.1:${proxy.port}/postgres`,
      next: random(seed + 1),
      // One more where one after the other is killed, so that somebody is always past its beginning.
      size: "kills" in length && length.kills > 0 ? 3 : 2,
      onExit: (code, said) => {
        if (isRunning) problems.push(`a worker ended with ${code}: ${said}`);
      },
    });
    const minutes = "minutes" in length ? length.minutes : 0;
    const deadline = openDeadline({
      milliseconds: minutes * 60_000 + GRACE,
      explain: async () => `${fleet.lastWords()}\n${await sessionsOf(server.url())}`,
      log,
    });

    const setup = postgres(server.url(), { max: 1, onnotice() {} });
    await install(setup);
    await createSlot(setup);
    await setup.unsafe(TABLES);
    for (const name of NAMES) await track(setup, name, { capture: "wal" });
    if (disk) await moveLog(setup, disk.folder);
    await setup.end();

    let isPaused = false;
    const clients = CLIENTS.map((who) =>
      startClient({
        url: server.url(),
        who,
        seed,
        isRunning: () => isRunning,
        isPaused: () => isPaused,
        lull,
      })
    );
    const next = random(seed);
    const world: World = {
      server,
      proxy,
      next,
      fleet,
      deadline,
      quota: disk?.quota,
      atRest: async (fn) => {
        isPaused = true;
        try {
          await atRest({ url: server.url(), clients, fleet, deadline }, fn);
        } finally {
          isPaused = false;
        }
      },
    };
    const transactions = (): number => clients.reduce((sum, { count }) => sum + count, 0);
    const faults: Record<string, number> = {};
    const count = (name: string): void => void (faults[name] = (faults[name] ?? 0) + 1);
    const make = async (name: string): Promise<void> => {
      fleet.keepEnough();
      try {
        await deadline.wait(name, FAULTS[name]?.(world));
        count(name);
      } catch (error) {
        if (error instanceof WaitedInVain) throw error;
        log(`${name} could not be done: ${String(error)}`);
      }
      if (fleet.killTheDeaf() > 0) problems.push("a worker did not end when it was asked to");
    };
    const hurt = async (): Promise<void> => {
      if ("minutes" in length) {
        const milliseconds = minutes * 60_000;
        const end = Date.now() + milliseconds;
        const names = Object.keys(FAULTS);
        const killing = killSteadily({
          fleet,
          next: random(seed + 2),
          kills: length.kills,
          milliseconds,
          isRunning: () => isRunning && Date.now() < end,
          isPaused: () => isPaused,
          onKill: () => count("worker killed"),
        });
        let minute = 0;
        while (Date.now() < end) {
          await pause(length.pause / 8 + next(length.pause));
          await make(names[next(names.length)] as string);
          const left = Math.ceil((end - Date.now()) / 60_000);
          if (left !== minute) {
            log(`${minute = left} minutes left: ${sum(faults)} faults, ${transactions()} transactions`);
          }
        }
        await killing;
      } else {
        for (const name of shuffled(length.faults, next)) {
          const goal = transactions() + length.transactions;
          await deadline.until(`${length.transactions} transactions`, () => transactions() >= goal);
          await make(name);
        }
      }
    };
    let journals: readonly (readonly Entry[])[] = [];
    let changes = 0;
    let gaps = 0;
    try {
      try {
        await hurt();
      } finally {
        isRunning = false;
      }
      journals = await deadline.wait("the clients to end", Promise.all(clients.map((one) => one.journal)));
      for (const worker of fleet.running) fleet.ask(worker);
      await deadline.until("the workers to end", () => fleet.running.length === 0, 300_000);
      await deadline.wait(
        "what is left to be read",
        runWorker({ source: server.url(), once: true }).finished,
      );
      const sql = postgres(server.url(), { max: 2, onnotice() {} });
      const verified = await deadline.wait("the oracles", verify(sql, journals));
      const [row] = await sql<{ gaps: number; aside: number }[]>`
        select (select count(*)::int from bemi.gaps) as gaps, (select count(*)::int from bemi.set_aside) as aside`;
      await sql.end();
      problems.push(...verified.problems);
      if (row?.aside) problems.push(`${row.aside} changes were set aside`);
      changes = verified.changes;
      gaps = row?.gaps ?? 0;
    } catch (error) {
      if (!(error instanceof WaitedInVain)) throw error;
      problems.push(error.message);
    }
    return {
      faults,
      killed: fleet.killed,
      transactions: journals.flat().length,
      changes,
      gaps,
      hasQuota: disk !== undefined,
      problems,
    };
  } finally {
    await server.remove();
    disk?.quota[Symbol.dispose]();
  }
}

function sum(counts: Readonly<Record<string, number>>): number {
  return Object.values(counts).reduce((sum, n) => sum + n, 0);
}

function shuffled(names: readonly string[], next: (n: number) => number): string[] {
  const rest = [...names];
  return names.map(() => rest.splice(next(rest.length), 1)[0] as string);
}

async function sessionsOf(url: string): Promise<string> {
  const sql = postgres(url, { max: 1, connect_timeout: 3, onnotice() {} });
  try {
    const rows = await sql<{ line: string }[]>`
      select concat_ws(' ', pid, application_name, state, wait_event, left(query, 100)) as line from pg_stat_activity
      where backend_type in ('client backend', 'walsender') and pid <> pg_backend_pid()`;
    return rows.map(({ line }) => `session ${line}`).join("\n");
  } finally {
    await sql.end({ timeout: 1 });
  }
}
