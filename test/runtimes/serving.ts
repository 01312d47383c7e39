import type { Serving } from "./add-tests.ts";

/** Asks a server on the loopback interface. */
export function asking(port: number, close: () => Promise<unknown>): Serving {
  return {
    ask: async ({ user, path }) => {
      const response = await fetch(`http://127.0.0.1:${port}${path}`, {
        headers: { "x-user": String(user) },
      });
      return await response.text();
    },
    [Symbol.asyncDispose]: async () => void await close(),
  };
}
