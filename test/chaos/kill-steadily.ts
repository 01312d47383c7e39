import { pause } from "./deadline.ts";
import type { Fleet } from "./fleet.ts";
import type { Random } from "./random.ts";

export interface KillSteadilyOptions {
  readonly fleet: Fleet;
  readonly next: Random;
  /** How many, evenly spread over so many milliseconds, whatever else happens meanwhile. */
  readonly kills: number;
  readonly milliseconds: number;
  readonly isRunning: () => boolean;
  readonly onKill: () => void;
}

/** Kills one worker after the other: those that read, that stand by, and that have only begun. */
export async function killSteadily(options: KillSteadilyOptions): Promise<void> {
  const { fleet, next, kills, milliseconds, isRunning, onKill } = options;
  const startedAt = Date.now();
  for (let killed = 0; killed < kills;) {
    const due = startedAt + milliseconds * (killed + 1) / (kills + 1);
    while (isRunning() && Date.now() < due) await pause(Math.min(50, Math.max(1, due - Date.now())));
    if (!isRunning()) return;
    fleet.keepTwo();
    // Mostly one that reads, where one does: it has the most to lose.
    const victims = fleet.reading.length > 0 && next(3) > 0 ? fleet.reading : fleet.running;
    const victim = victims[next(victims.length)];
    if (victim) {
      fleet.kill(victim);
      killed++;
      onKill();
    }
    await pause(1);
  }
}
