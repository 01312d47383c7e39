import type { Registry } from "prom-client";
import { BemiError } from "../../errors.ts";
import { MODES, type SlotFacts, type WorkerState } from "./worker-state.ts";

/** What a server may say of a slot's WAL (PostgreSQL documentation, 53.19 pg_replication_slots). */
const WAL_STATUSES = ["reserved", "extended", "unreserved", "lost"];

const COUNTERS = {
  bemi_changes_written_total: ["Changes written into the log", (state) => state.written],
  bemi_transactions_written_total: ["Transactions whose changes were written", (state) => state.transactions],
  bemi_changes_set_aside_total: [
    "Changes that the log refused, kept in set_aside",
    (state) => state.setAside,
  ],
  bemi_gaps_total: ["Gaps that were found: WAL lost before it was read", (state) => state.gaps],
  bemi_worker_reconnects_total: ["Faults after which the worker began again", (state) => state.reconnects],
  bemi_worker_maintenance_failures_total: [
    "Times that partitions could not be looked after",
    (state) => state.maintenanceFailures,
  ],
} satisfies Record<string, [string, (state: WorkerState) => number]>;

const GAUGES = {
  bemi_commit_to_log_seconds: [
    "From the last written commit to its being in the log",
    (state) => seconds(state.delay),
  ],
  bemi_heartbeat_seconds: [
    "What the last heartbeat took through the Write-Ahead Log and back",
    (state) => seconds(state.heartbeat?.roundTrip),
  ],
  bemi_heartbeat_timestamp_seconds: [
    "When the last heartbeat came back",
    (state) => seconds(state.heartbeat?.at),
  ],
  bemi_last_change_timestamp_seconds: [
    "When the last written change was committed",
    (state) => seconds(state.lastChangeAt),
  ],
  bemi_worker_last_turn_timestamp_seconds: [
    "When the worker's loop last turned",
    (_, turnedAt) => turnedAt / 1000,
  ],
} satisfies Record<string, [string, (state: WorkerState, turnedAt: number) => number | undefined]>;

const SLOT_GAUGES = {
  bemi_slot_retained_bytes: ["WAL that the slot keeps", (slot) => slot.retained],
  bemi_slot_confirmed_lag_bytes: [
    "WAL that was not confirmed to have been read",
    (slot) => slot.confirmedLag,
  ],
  bemi_slot_safe_wal_bytes: ["WAL that may be written before some is lost", (slot) => slot.safe],
  bemi_slot_time_to_loss_seconds: [
    "Until WAL is lost at the present rate, if none is read",
    (slot) => slot.timeToLoss,
  ],
  bemi_wal_bytes_per_second: ["WAL that the server wrote over the last minute", (slot) => slot.walRate],
} satisfies Record<string, [string, (slot: SlotFacts) => number | undefined]>;

const SLOT_COUNTERS = {
  bemi_slot_spilled_bytes_total: [
    "Bytes that the server wrote to its disk to decode transactions beyond logical_decoding_work_mem",
    (slot) => slot.spilledBytes,
  ],
  bemi_slot_spilled_transactions_total: [
    "Transactions that the server wrote to its disk to decode them",
    (slot) => slot.spilledTransactions,
  ],
} satisfies Record<string, [string, (slot: SlotFacts) => number]>;

/** The names of all metrics. */
export const METRICS: readonly string[] = [
  ...Object.keys({ ...COUNTERS, ...GAUGES, ...SLOT_GAUGES, ...SLOT_COUNTERS }),
  "bemi_slot_wal_status",
  "bemi_worker_mode",
  "bemi_worker_last_error_timestamp_seconds",
];

/** Says in Prometheus' text format what is known at the time; what is not known is left out. */
export interface Metrics {
  readonly contentType: string;
  text(): Promise<string>;
}

/** @throws {BemiError} `missing_package` */
export async function metrics(state: () => WorkerState, turnedAt: () => number): Promise<Metrics> {
  const { Counter, Gauge, Registry, collectDefaultMetrics } = await import("prom-client").catch(
    (cause: unknown) => {
      throw new BemiError("missing_package", "Metrics need the package prom-client", {
        hint: "Install it: npm install prom-client",
        cause,
      });
    },
  );
  const registry: Registry = new Registry();
  const registers = [registry];
  for (const [name, [help, value]] of Object.entries(COUNTERS)) {
    new Counter({
      name,
      help,
      registers,
      collect() {
        this.reset();
        this.inc(value(state()));
      },
    });
  }
  // A gauge without a label would be 0 where nothing is known.
  const gauge = (
    name: string,
    help: string,
    labelNames: readonly string[],
    values: () => Iterable<readonly [Record<string, string>, number | undefined]>,
  ): void => {
    new Gauge({
      name,
      help,
      labelNames,
      registers,
      collect() {
        this.reset();
        for (const [labels, value] of values()) if (value !== undefined) this.set(labels, value);
      },
    });
  };
  const database = (): Record<string, string> => ({ database: state().database ?? "" });
  for (const [name, [help, value]] of Object.entries(GAUGES)) {
    gauge(name, help, ["database"], () => [[database(), value(state(), turnedAt())]]);
  }
  const ofSlot = (slot: SlotFacts): Record<string, string> => ({ ...database(), slot: slot.name });
  for (const [name, [help, value]] of Object.entries(SLOT_GAUGES)) {
    gauge(name, help, ["database", "slot"], () => {
      const { slot } = state();
      return slot ? [[ofSlot(slot), value(slot)]] : [];
    });
  }
  for (const [name, [help, value]] of Object.entries(SLOT_COUNTERS)) {
    new Counter({
      name,
      help,
      labelNames: ["database", "slot"],
      registers,
      collect() {
        this.reset();
        const { slot } = state();
        if (slot) this.inc(ofSlot(slot), value(slot));
      },
    });
  }
  gauge(
    "bemi_slot_wal_status",
    "Whether the server still owes the slot its WAL",
    ["database", "slot", "status"],
    () => {
      const { slot } = state();
      return slot
        ? WAL_STATUSES.map((status) => [{ ...ofSlot(slot), status }, Number(status === slot.walStatus)])
        : [];
    },
  );
  gauge(
    "bemi_worker_mode",
    "How the worker is at it",
    ["database", "mode"],
    () => MODES.map((mode) => [{ ...database(), mode }, Number(mode === state().mode)]),
  );
  // One code at a time, so that the series stay few.
  gauge(
    "bemi_worker_last_error_timestamp_seconds",
    "When the last fault happened, by its SQLSTATE or system code",
    ["database", "code"],
    () => {
      const { lastError } = state();
      return lastError ? [[{ ...database(), code: lastError.code }, lastError.at / 1000]] : [];
    },
  );
  collectDefaultMetrics({ register: registry });
  // Gauges that are called totals, which promtool finds wrong.
  for (const kind of ["handles", "requests", "resources"]) {
    registry.removeSingleMetric(`nodejs_active_${kind}_total`);
  }
  return { contentType: registry.contentType, text: () => registry.metrics() };
}

function seconds(milliseconds: number | undefined): number | undefined {
  return milliseconds === undefined ? undefined : milliseconds / 1000;
}
