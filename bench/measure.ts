/** One thing to time. `run` resolves to how many units it did; only the time within it counts. */
export interface Subject {
  readonly name: string;
  prepare?(): Promise<void>;
  run(): Promise<number>;
}

/**
 * Times the subjects in turns, so that a busy machine slows all of them alike, and prints medians
 * beside the first, which is the baseline.
 */
export async function compare(
  title: string,
  subjects: readonly Subject[],
  { rounds = 5, unit = "rows/s" }: { rounds?: number; unit?: string } = {},
): Promise<void> {
  const rates = new Map<string, number[]>(subjects.map((subject) => [subject.name, []]));
  for (let round = 0; round < rounds; round++) {
    for (const subject of subjects) {
      await subject.prepare?.();
      const start = process.hrtime.bigint();
      const units = await subject.run();
      rates.get(subject.name)?.push(units / (Number(process.hrtime.bigint() - start) / 1e9));
    }
  }
  console.log(`\n${title} (median of ${rounds}, in turns)`);
  const width = Math.max(...subjects.map((subject) => subject.name.length));
  const baseline = median(rates.get(subjects[0]?.name ?? "") ?? []);
  for (const [name, values] of rates) {
    const rate = median(values);
    const spread = `${format(Math.min(...values))} to ${format(Math.max(...values))}`;
    console.log(
      `  ${name.padEnd(width)}  ${format(rate).padStart(10)} ${unit}  ${
        (rate / baseline).toFixed(2)
      }x  (${spread})`,
    );
  }
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] ?? 0 : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2;
}

function format(rate: number): string {
  return rate >= 100 ? Math.round(rate).toLocaleString("en") : rate.toFixed(2);
}
