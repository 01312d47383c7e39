import { timeToLoss } from "../../install/mod.ts";
import { parseLsn } from "../../worker/decode.ts";
import type { WorkerEvent } from "../../worker/mod.ts";

/** How the worker is at it; `connecting` is also what it does after a fault. */
export const MODES = ["connecting", "standby", "bulk", "stream", "poll"] as const;

export type Mode = typeof MODES[number];

/** What the events of a worker have told so far. */
export interface WorkerState {
  readonly mode: Mode;
  readonly database: string | undefined;
  readonly written: number;
  readonly transactions: number;
  readonly setAside: number;
  readonly gaps: number;
  readonly reconnects: number;
  readonly maintenanceFailures: number;
  /** Milliseconds since 1970. */
  readonly lastChangeAt: number | undefined;
  /** Milliseconds from the last commit to its being in the log. */
  readonly delay: number | undefined;
  /** The last heartbeat that came back: milliseconds that it took through the WAL, and when that was. */
  readonly heartbeat: { readonly roundTrip: number; readonly at: number } | undefined;
  readonly lastError: { readonly code: string; readonly at: number } | undefined;
  /** Absent while this worker does not look after the slot. */
  readonly slot: SlotFacts | undefined;
}

/** Where the slot stands; sizes are bytes. */
export interface SlotFacts {
  readonly name: string;
  readonly walStatus: string;
  readonly confirmedLag: number;
  readonly retained: number;
  readonly safe: number | undefined;
  /** WAL that the server wrote, bytes a second; absent before the second look. */
  readonly walRate: number | undefined;
  /** Until the server may remove WAL that was not read, in seconds, if nothing more is read meanwhile. */
  readonly timeToLoss: number | undefined;
  /** What the server wrote to its disk while it decoded large transactions. */
  readonly spilledBytes: number;
  readonly spilledTransactions: number;
}

/** Milliseconds over which the rate of WAL is taken. */
const RATE_WINDOW = 60_000;

/**
 * Keeps the state that events make up.
 *
 * @param initial how a worker reads that has just begun
 */
export function workerState(
  initial: Mode,
): { readonly current: WorkerState; observe(event: WorkerEvent): void } {
  let state: WorkerState = {
    mode: "connecting",
    database: undefined,
    written: 0,
    transactions: 0,
    setAside: 0,
    gaps: 0,
    reconnects: 0,
    maintenanceFailures: 0,
    lastChangeAt: undefined,
    delay: undefined,
    heartbeat: undefined,
    lastError: undefined,
    slot: undefined,
  };
  let slotName = "";
  let looks: { readonly at: number; readonly lsn: bigint }[] = [];

  const slotFacts = (event: WorkerEvent & { kind: "slot" }): SlotFacts => {
    const now = { at: performance.now(), lsn: parseLsn(event.flushed) };
    looks = [...looks.filter(({ at }) => now.at - at <= RATE_WINDOW), now];
    const [first = now] = looks;
    const seconds = (now.at - first.at) / 1000;
    const walRate = seconds > 0 ? Number(now.lsn - first.lsn) / seconds : undefined;
    const safe = event.safe === undefined ? undefined : Number(event.safe);
    return {
      name: slotName,
      walStatus: event.walStatus,
      confirmedLag: Number(event.confirmedLag),
      retained: Number(event.retained),
      safe,
      walRate,
      timeToLoss: timeToLoss(safe, walRate),
      spilledBytes: Number(event.spilledBytes),
      spilledTransactions: Number(event.spilledTransactions),
    };
  };

  const next = (event: WorkerEvent): Partial<WorkerState> => {
    switch (event.kind) {
      case "started":
        slotName = event.slot;
        return { database: event.database, mode: initial };
      case "reading":
        return { mode: event.mode };
      case "standby":
        return { mode: "standby", slot: undefined, heartbeat: undefined };
      case "written":
        return {
          written: state.written + event.written,
          transactions: state.transactions + event.transactions,
          setAside: state.setAside + event.setAside,
          lastChangeAt: Date.now() - event.delay,
          delay: event.delay,
        };
      case "slot":
        return { mode: state.mode === "standby" ? initial : state.mode, slot: slotFacts(event) };
      case "heartbeat":
        return { heartbeat: { roundTrip: event.roundTrip, at: Date.now() } };
      case "gap":
        return { gaps: state.gaps + 1 };
      case "retry":
        return {
          mode: "connecting",
          slot: undefined,
          heartbeat: undefined,
          reconnects: state.reconnects + 1,
          lastError: { code: event.code, at: Date.now() },
        };
      case "maintenance-failed":
        return {
          maintenanceFailures: state.maintenanceFailures + 1,
          lastError: { code: event.code, at: Date.now() },
        };
      default:
        return {};
    }
  };
  return {
    get current() {
      return state;
    },
    observe: (event) => {
      state = { ...state, ...next(event) };
    },
  };
}
