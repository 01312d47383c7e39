import { connect, type Socket } from "node:net";

/** What postgres.js passes to a socket factory of its options, once it has parsed them. */
export interface Hosts {
  readonly host: readonly string[];
  readonly port: readonly number[];
  /** A Unix socket. */
  readonly path?: string | undefined;
}

const TIMEOUT = 15_000;

/**
 * Opens a connection to the first host that answers, and has it send what there is at once. postgres.js does not, and
 * then the last bytes of a COPY wait some 40 ms for the server's acknowledgement (Nagle's algorithm).
 */
export async function openSocket({ host, port, path }: Hosts): Promise<Socket> {
  if (path) return await opened(connect(path));
  let failure: unknown;
  for (let i = 0; i < host.length; i++) {
    const name = host[i] as string;
    const number = port[i % port.length] as number;
    try {
      const socket = await opened(connect({ host: name, port: number, noDelay: true, keepAlive: true }));
      // What the driver sets on its own, and verifies a certificate by.
      return Object.assign(socket, { host: name, port: number });
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
}

function opened(socket: Socket): Promise<Socket> {
  return new Promise((done, fail) => {
    const timer = setTimeout(() => {
      socket.destroy(Object.assign(new Error("The server does not answer"), { code: "CONNECT_TIMEOUT" }));
    }, TIMEOUT);
    socket.once("error", fail).once("close", () => clearTimeout(timer));
    socket.once("connect", () => {
      clearTimeout(timer);
      socket.removeListener("error", fail);
      // A proxy with no server behind it hangs up at once; the driver takes that for no error, and would call for ever.
      socket.once("end", () => {
        if (socket.bytesRead > 0) return;
        socket.destroy(Object.assign(new Error("The server hung up"), { code: "CONNECTION_CLOSED" }));
      });
      done(socket);
    });
  });
}
