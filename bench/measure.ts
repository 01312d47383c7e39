import { existsSync, readFileSync } from "node:fs";

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
  { rounds = 5, unit = "rows/s", byTime = false, clock = process.hrtime.bigint, server }: CompareOptions = {},
): Promise<void> {
  const rates = subjects.map((): number[] => []);
  const served = subjects.map((): number[] => []);
  for (let round = 0; round < rounds; round++) {
    for (const [i, subject] of subjects.entries()) {
      await subject.prepare?.();
      const [start, before] = [clock(), server?.() ?? 0n];
      const units = await subject.run();
      rates[i]?.push(units / (Number(clock() - start) / 1e9));
      if (server) served[i]?.push(Number(server() - before) / 1e3 / units);
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
    console.log(`  ${ratioOf(ratios)}  ${name.padEnd(width)}  ${rate}${more}${there}`);
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
