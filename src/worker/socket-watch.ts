import type { Socket } from "node:net";
import { connectionLost } from "./sql.ts";

/** How long after a connection went its session may stand still, in milliseconds. */
const STUCK_AFTER = 15_000;

const LOOK_INTERVAL = 1000;

/**
 * The connections of one session, watched from outside it: postgres.js 3.4.9 can leave a query without an answer when
 * its connection goes, and with that the session without an end.
 */
export interface SocketWatch {
  opened(socket: Socket): void;
  /** The session goes on, so it has noticed what it lost. */
  turned(): void;
  /**
   * Runs a session, which can be given up: then it is told to end, and its connections are closed.
   *
   * @throws `CONNECTION_CLOSED` where it stands still since a connection went
   */
  guard<R>(session: (signal: AbortSignal) => Promise<R>, signal: AbortSignal): Promise<R>;
}

export function socketWatch(): SocketWatch {
  const open = new Set<Socket>();
  let lostAt: number | undefined;
  let isGivenUp = false;
  return {
    opened: (socket) => {
      if (isGivenUp) socket.destroy();
      lostAt = undefined;
      open.add(socket);
      socket.once("close", () => {
        open.delete(socket);
        lostAt ??= performance.now();
      });
    },
    turned: () => {
      lostAt = undefined;
    },
    guard: async (session, signal) => {
      const ending = new AbortController();
      const end = (): void => ending.abort();
      if (signal.aborted) end();
      signal.addEventListener("abort", end, { once: true });
      let timer: ReturnType<typeof setInterval> | undefined;
      const stuck = new Promise<never>((_, reject) => {
        timer = setInterval(() => {
          if (lostAt === undefined || performance.now() - lostAt < STUCK_AFTER) return;
          isGivenUp = true;
          end();
          for (const socket of open) socket.destroy();
          reject(connectionLost());
        }, LOOK_INTERVAL);
      });
      try {
        return await Promise.race([session(ending.signal), stuck]);
      } finally {
        clearInterval(timer);
        signal.removeEventListener("abort", end);
      }
    },
  };
}
