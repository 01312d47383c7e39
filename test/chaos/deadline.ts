/** What a run waits for, and until when: a run that hangs says on what. */
export interface Deadline {
  /**
   * Waits for something, at most until the run's end or for `atMost` milliseconds, whichever comes first.
   *
   * @throws that it waits in vain, and for what
   */
  wait<R>(what: string, promise: Promise<R> | R, atMost?: number): Promise<R>;
  /** Asks again and again. */
  until(what: string, ask: () => Promise<boolean> | boolean, atMost?: number): Promise<void>;
  /** Asks how far something is, again and again, until it is there: for as long as it moves, however slowly. */
  untilThere(what: string, ask: () => Promise<string | true>, standstill: number): Promise<void>;
}

/** A wait that came to nothing: a finding, where a fault may well fail for what another did. */
export class WaitedInVain extends Error {}

export interface DeadlineOptions {
  readonly milliseconds: number;
  /** What else there is to know when a wait came to nothing. */
  readonly explain: () => Promise<string>;
  readonly log: (line: string) => void;
}

/** A wait that is told of, in milliseconds. */
const SLOW = 10_000;

export function openDeadline({ milliseconds, explain, log }: DeadlineOptions): Deadline {
  const end = Date.now() + milliseconds;
  const wait = async <R>(what: string, promise: Promise<R> | R, atMost = Infinity): Promise<R> => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const slow = setTimeout(() => {
      void explain().catch(String).then((said) => log(`still waiting for ${what}\n${said}`));
    }, 2 * SLOW);
    const startedAt = Date.now();
    const late = new Promise<never>((_, fail) => {
      timer = setTimeout(() => {
        const seconds = Math.round((Date.now() - startedAt) / 1000);
        const inVain = (said: string): void =>
          fail(new WaitedInVain(`waited ${seconds} s in vain for ${what}\n${said}`));
        void explain().then(inVain, (error: unknown) => inVain(String(error)));
      }, Math.max(0, Math.min(atMost, end - startedAt)));
    });
    try {
      return await Promise.race([promise, late]);
    } finally {
      clearTimeout(timer);
      clearTimeout(slow);
      const took = Date.now() - startedAt;
      if (took > SLOW) log(`waited ${Math.round(took / 1000)} s for ${what}`);
    }
  };
  const until: Deadline["until"] = async (what, ask, atMost) => {
    let isOver = false;
    const asking = async (): Promise<void> => {
      while (!isOver && !await ask()) await pause(50);
    };
    try {
      await wait(what, asking(), atMost);
    } finally {
      isOver = true;
    }
  };
  return {
    wait,
    until,
    untilThere: async (what, ask, standstill) => {
      let at = await ask();
      while (at !== true) {
        const before = at;
        await until(what, async () => {
          at = await ask();
          return at !== before;
        }, standstill);
      }
    },
  };
}

export function pause(milliseconds: number): Promise<void> {
  return new Promise((done) => setTimeout(done, milliseconds));
}
