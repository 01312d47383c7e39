/** What a command may touch of the process. Data goes to `out`, everything else to `err`. */
export interface Io {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
  /** The terminal's width; absent where stdout is no terminal. */
  readonly columns: number | undefined;
  /** Whether stdout is a terminal that shows colours, and NO_COLOR is not set. */
  readonly isColoured: boolean;
  /** Shows a line in place of the one before; absent where stderr is no terminal. An empty one takes it away. */
  readonly progress: ((line: string) => void) | undefined;
  /** Calls `stop` when the process is asked to end, instead of ending it. */
  readonly onTerminate: (stop: () => void) => void;
}
