import { pause } from "./deadline.ts";
import type { Fleet } from "./fleet.ts";
import type { Random } from "./random.ts";

export interface KillSteadilyOptions {
  readonly fleet: Fleet;
  readonly next: Random;
  /** How many at most, evenly spread over so many milliseconds, whatever else happens meanwhile. */
  readonly kills: number;
  readonly milliseconds: number;
  readonly isRunning: () => boolean;
  /** Where the log has to catch up with what was written, the killing pauses: the time that it takes is not counted. */
  readonly isPaused: () => boolean;
  readonly onKill: () => void;
}

/** Kills one worker after the other: those that read, that stand by, and that have only begun. */
export async function killSteadily(options: KillSteadilyOptions): Promise<void> {
  const { fleet, next, kills, milliseconds, isRunning, isPaused, onKill } = options;
  for (let killed = 0; killed < kills;) {
    for (let left = milliseconds / (kills + 1); left > 0 && isRunning();) {
      const startedAt = Date.now();
      await pause(Math.min(50, left));
      if (!isPaused()) left -= Date.now() - startedAt;
    }
    if (!isRunning()) return;
    fleet.keepEnough();
    // Mostly one that reads, where one does: it has the most to lose.
    const victims = fleet.reading.length > 0 && next(3) > 0 ? fleet.reading : fleet.running;
    const victim = victims[next(victims.length)];
    if (!victim) continue;
    fleet.kill(victim);
    killed++;
    onKill();
  }
}
