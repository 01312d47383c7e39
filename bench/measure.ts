import { existsSync, readdirSync, readFileSync } from "node:fs";

/** One thing to time. `run` resolves to how many units it did; only the time within it counts. */
export interface Subject {
  readonly name: string;
  /** Whether the README's table has it. */
  readonly isHeadline?: boolean;
  prepare?(): Promise<void>;
  run(): Promise<number>;
}

export interface CompareOptions {
  readonly rounds?: number;
  /** What a rate counts. */
  readonly unit?: string;
  /** Compare by time instead of by rate: 1.10 is a tenth more time than the baseline. Then also tells how much more. */
  readonly byTime?: boolean;
  /** What is counted, in nanoseconds. Wall time by default. */
  readonly clock?: () => bigint;
  /** A clock of the server's own, of which the ratios are told beside: what a client waits for is mostly the way there. */
  readonly server?: () => bigint;
  /** The same of the client's: microseconds for one are seconds for a million. */
  readonly client?: () => bigint;
}

/** A line of the README's table. */
export interface Headline {
  readonly title: string;
  readonly name: string;
  /** Beside what. */
  readonly baseline: string;
  readonly figures: string;
}

/** What was told so far. */
export const headlines: Headline[] = [];

/** Takes figures that are no ratio of rates into the table. */
export function tell(title: string, name: string, figures: string, baseline = ""): void {
  headlines.push({ title, name, baseline, figures });
}

/**
 * Times the subjects in turns, so that a busy machine slows all of them alike. Prints each one's ratio to the first,
 * the baseline of the same round: the median, the whole interval, then the median rate.
 */
export async function compare(
  title: string,
  subjects: readonly Subject[],
  { rounds = 5, unit = "rows/s", byTime = false, clock = process.hrtime.bigint, server, client }:
    CompareOptions = {},
): Promise<void> {
  const rates = subjects.map((): number[] => []);
  const served = subjects.map((): number[] => []);
  const asked = subjects.map((): number[] => []);
  for (let round = 0; round < rounds; round++) {
    for (const [i, subject] of subjects.entries()) {
      await subject.prepare?.();
      const [start, before, own] = [clock(), server?.() ?? 0n, client?.() ?? 0n];
      const units = await subject.run();
      rates[i]?.push(units / (Number(clock() - start) / 1e9));
      if (server) served[i]?.push(Number(server() - before) / 1e3 / units);
      if (client) asked[i]?.push(Number(client() - own) / 1e3 / units);
    }
  }
  const what = byTime ? "time beside the first" : "rate beside the first";
  console.log(`\n${title} (${what}: median, lowest and highest of ${rounds} rounds)`);
  const width = Math.max(...subjects.map((subject) => subject.name.length));
  const baseline = rates[0] ?? [];
  for (const [i, { name, isHeadline }] of subjects.entries()) {
    const own = rates[i] ?? [];
    const ratios = own.map((rate, round) =>
      byTime ? (baseline[round] ?? 0) / rate : rate / (baseline[round] ?? 0)
    );
    const rate = `${format(median(own))} ${unit}`;
    const times = served[i] ?? [];
    const cpu = ratioOf(times.map((time, round) => time / (served[0]?.[round] ?? 0)));
    const there = server ? `; the server's CPU: ${format(median(times))} µs, × ${cpu}` : "";
    const more = byTime && i > 0
      ? `, ${signed(median(own.map((r, round) => 1e6 / r - 1e6 / (baseline[round] ?? r))))} µs each`
      : "";
    const here = client ? `, the client's: ${format(median(asked[i] ?? []))} µs` : "";
    console.log(`  ${ratioOf(ratios)}  ${name.padEnd(width)}  ${rate}${more}${there}${here}`);
    if (isHeadline) {
      const figures = `${byTime ? "time" : "rate"} × ${ratioOf(ratios)}${more}`;
      tell(title, name, server ? `server's CPU × ${cpu}, ${figures}` : figures, subjects[0]?.name);
    }
  }
}

function ratioOf(ratios: readonly number[]): string {
  return `${median(ratios).toFixed(2)} (${Math.min(...ratios).toFixed(2)} to ${
    Math.max(...ratios).toFixed(2)
  })`;
}

/** The CPU time that a process of this machine has used; wall time where the kernel does not tell (Linux does). */
export function cpuClock(pid: number): () => bigint {
  const file = `/proc/${pid}/schedstat`;
  if (!existsSync(file)) return process.hrtime.bigint;
  return () => BigInt(readFileSync(file, "utf8").split(" ", 1)[0] ?? 0);
}

/** The CPU time of a server with all its processes; wall time where the kernel does not tell. */
export function serverClock(postmaster: number): () => bigint {
  if (!existsSync("/proc/self/stat")) return process.hrtime.bigint;
  return () => {
    for (;;) {
      const children = readdirSync("/proc").filter((name) => /^\d+$/.test(name)).map(cpuTicks)
        .filter(({ parent }) => parent === postmaster);
      // The time of one that has ended is nobody's until the postmaster has noticed.
      if (children.some(({ state }) => state === "Z")) continue;
      return BigInt(children.reduce((sum, { ticks }) => sum + ticks, cpuTicks(String(postmaster)).ticks)) *
        TICK;
    }
  };
}

/** The CPU time of this process and of those that it has waited for. */
export function clientClock(): bigint {
  return existsSync("/proc/self/stat") ? BigInt(cpuTicks("self").ticks) * TICK : process.hrtime.bigint();
}

const TICK = 10_000_000n;

/** Its own, and of its children that it has waited for. One that has ended meanwhile is nobody's child. */
function cpuTicks(pid: string): { readonly state: string; readonly parent: number; readonly ticks: number } {
  let stat = "";
  try {
    stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  } catch {
    return { state: "", parent: 0, ticks: 0 };
  }
  // Behind the name, which may hold anything: state, parent, and from the 12th field on four times in ticks.
  const [state = "", ...fields] = stat.replace(/^.*\) /s, "").split(" ");
  const ticks = fields.slice(10, 14).reduce((sum, field) => sum + Number(field), 0);
  return { state, parent: Number(fields[0]), ticks };
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] ?? 0 : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2;
}

function signed(difference: number): string {
  return `${difference < 0 ? "-" : "+"}${Math.abs(difference).toFixed(1)}`;
}

function format(rate: number): string {
  return rate >= 100 ? Math.round(rate).toLocaleString("en") : rate.toFixed(2);
}
