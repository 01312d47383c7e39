import postgres from "postgres";
import type { Server } from "../support/servers.ts";
import { type Deadline, pause } from "./deadline.ts";
import type { Fleet } from "./fleet.ts";
import type { Proxy } from "./proxy.ts";
import type { Quota } from "./quota.ts";
import type { Random } from "./random.ts";

/** What a fault can lay its hands on. */
export interface World {
  readonly server: Server;
  readonly proxy: Proxy;
  readonly next: Random;
  readonly fleet: Fleet;
  readonly deadline: Deadline;
  /** The disk of the log, where one could be had. */
  readonly quota: Quota | undefined;
  /** Holds the clients back until `fn` has ended, with everything that was committed in the log. */
  readonly atRest: (fn: (sql: postgres.Sql) => Promise<void>) => Promise<void>;
}

export type Fault = (world: World) => Promise<void> | void;

async function withSql(world: World, fn: (sql: postgres.Sql) => Promise<unknown>): Promise<void> {
  const sql = postgres(world.server.url(), { max: 1, onnotice() {}, connect_timeout: 30 });
  try {
    await fn(sql);
  } finally {
    await sql.end({ timeout: 1 });
  }
}

/** Does something until a moment later, and takes it back whatever happens. */
async function meanwhile(world: World, begin: () => void, end: () => void, atMost = 2000): Promise<void> {
  begin();
  try {
    await pause(200 + world.next(atMost));
  } finally {
    end();
  }
}

export const FAULTS: Readonly<Record<string, Fault>> = {
  "worker killed": ({ fleet, next }) => {
    const worker = fleet.running[next(fleet.running.length)];
    if (worker) fleet.kill(worker);
  },
  "all workers killed": ({ fleet }) => {
    for (const worker of fleet.running) fleet.kill(worker);
  },
  "worker asked to end": ({ fleet, next }) => {
    const worker = fleet.running[next(fleet.running.length)];
    if (worker) fleet.ask(worker);
  },
  "worker stopped and continued": async (world) => {
    const { running } = world.fleet;
    const worker = running[world.next(running.length)];
    await meanwhile(world, () => worker?.kill("SIGSTOP"), () => worker?.kill("SIGCONT"));
  },
  "worker with a wrong clock": ({ fleet, next }) => {
    const [worker] = fleet.running;
    if (worker) fleet.kill(worker);
    fleet.start((next(2) ? 1 : -1) * 86_400_000 * (1 + next(400)));
  },
  "server stopped immediately": async ({ server }) => {
    await server.stop("immediate");
    await server.start();
  },
  "server restarted": async ({ server }) => {
    await server.stop("fast");
    await server.start();
  },
  "network cut": ({ proxy }) => proxy.cut(),
  "network silent, then cut": async (world) => {
    const { proxy } = world;
    await meanwhile(world, () => void (proxy.isSilent = true), () => {
      proxy.cut();
      proxy.isSilent = false;
    }, 4000);
  },
  "network delayed": async (world) => {
    const { proxy, next } = world;
    await meanwhile(world, () => void (proxy.delay = 20 + next(200)), () => void (proxy.delay = 0));
  },
  "network throttled": async (world) => {
    const { proxy, next } = world;
    await meanwhile(world, () => void (proxy.rate = 20_000 + next(200_000)), () => void (proxy.rate = 0));
  },
  "backends terminated": (world) =>
    withSql(
      world,
      (sql) =>
        sql`select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'bemi worker'`,
    ),
  "statements cancelled": (world) =>
    withSql(
      world,
      (sql) =>
        sql`select pg_cancel_backend(pid) from pg_stat_activity where application_name = 'bemi worker'`,
    ),
  "connections exhausted": async (world) => {
    const hoard: postgres.Sql[] = [];
    try {
      for (let i = 0; i < 60; i++) {
        const sql = postgres(world.server.url(), {
          max: 1,
          fetch_types: false,
          connect_timeout: 2,
          onnotice() {},
        });
        hoard.push(sql);
        if (await sql`select 1`.then(() => false, () => true)) break;
      }
      await pause(500);
    } finally {
      await Promise.all(hoard.map((sql) => sql.end({ timeout: 1 })));
    }
  },
  "destination full": async (world) => {
    const { quota, next } = world;
    if (quota) await meanwhile(world, () => quota.fill(), () => quota.free());
    else await refuseAsFull(world, 300 + next(1500));
  },
  "schema changed": (world) =>
    withSql(world, async (sql) => {
      const column = `c${world.next(1_000_000)}`;
      const pauses = [world.next(500), world.next(500)];
      await sql.unsafe("set lock_timeout = '2s'");
      for (
        const change of [`add column ${column} text default 'x'`, `rename column ${column} to ${column}_b`]
      ) {
        await patiently(() => sql.unsafe(`alter table items ${change}`));
        await pause(pauses.pop() ?? 0);
      }
      await patiently(() => sql.unsafe(`alter table items drop column ${column}_b`));
    }),
  "log locked": (world) =>
    withSql(world, (sql) =>
      sql.begin(async (tx) => {
        await tx`lock table bemi.checkpoints in access exclusive mode`;
        await pause(300 + world.next(1000));
      })),
  // The workers are told to make it anew: with everything read, nothing is lost but for a gap on record.
  "slot dropped and made anew": (world) =>
    world.atRest(async (sql) => {
      await world.deadline.until("the slot to be free to drop", async () => {
        await sql`select pg_terminate_backend(active_pid) from pg_replication_slots where active`;
        return await sql`select pg_drop_replication_slot(bemi.slot_name())`.then(() => true, () => false);
      }, 30_000);
      await world.deadline.until("a worker to make the slot anew", async () => {
        world.fleet.keepEnough();
        const found = await sql`select from pg_replication_slots
          where slot_name = bemi.slot_name() and confirmed_flush_lsn is not null`;
        return found.length > 0;
      }, 300_000);
    }),
};

/** Again where a lock is not to be had, as the clients hold it. */
async function patiently(change: () => Promise<unknown>): Promise<void> {
  for (let tries = 1;; tries++) {
    try {
      await change();
      return;
    } catch (error) {
      if (tries === 20 || !/^(?:55P03|40P01)$/.test(String((error as { code?: unknown }).code))) throw error;
    }
  }
}

/** What a full disk answers, where no disk can be had that is full. */
function refuseAsFull(world: World, milliseconds: number): Promise<void> {
  return withSql(world, async (sql) => {
    await sql.unsafe(`create or replace function full_disk() returns trigger language plpgsql as
      $$ begin raise disk_full using message = 'no space left'; end $$;
      create trigger full_disk before insert on bemi.changes for each statement execute function full_disk()`);
    try {
      await pause(milliseconds);
    } finally {
      await sql.unsafe("drop trigger full_disk on bemi.changes").catch(() => {});
    }
  });
}
