import { connect, type Socket } from "node:net";
import type { Address } from "./hosts.ts";
import { connectionLost } from "./sql.ts";
import { secured } from "./tls.ts";
import type { TlsSettings } from "./tls-settings.ts";

const TIMEOUT = 15_000;

/** How long a connection may be silent before the host is asked whether it is there; else that takes two hours. */
const KEEPALIVE = 20_000;

/**
 * Opens a connection, encrypted as the target says, and has it send what there is at once. postgres.js does not, and
 * then the last bytes of a COPY wait some 40 ms for the server's acknowledgement (Nagle's algorithm). It does not verify
 * what `sslmode` asks for either, and would speak TLS to a server without.
 *
 * @throws {BemiError} `connection_failed` where TLS is not to be had as it is asked for, `usage` where a file is missing
 */
export async function openSocket({ host, port, path }: Address, tls: TlsSettings): Promise<Socket> {
  if (path) return hangingUp(await opened(connect(path)));
  // What the driver sets on its own, and names in its errors.
  return Object.assign(hangingUp(await encrypted(host, port, tls)), { host, port });
}

async function encrypted(host: string, port: number, tls: TlsSettings): Promise<Socket> {
  const open = (): Promise<Socket> =>
    opened(connect({ host, port, noDelay: true, keepAlive: true, keepAliveInitialDelay: KEEPALIVE }));
  const socket = await open();
  const timer = setTimeout(() => socket.destroy(noAnswer()), TIMEOUT);
  // It may go while files are read, when nobody else listens.
  socket.on("error", () => {});
  try {
    return await secured(socket, host, tls);
  } catch (error) {
    socket.destroy();
    // As libpq: where TLS is but preferred, what cannot begin goes on without.
    if (tls.mode !== "prefer" || (error as { code?: unknown }).code !== "connection_failed") throw error;
    return await open();
  } finally {
    clearTimeout(timer);
  }
}

function opened(socket: Socket): Promise<Socket> {
  return new Promise((done, fail) => {
    const timer = setTimeout(() => socket.destroy(noAnswer()), TIMEOUT);
    socket.once("error", fail).once("close", () => clearTimeout(timer));
    socket.once("connect", () => {
      clearTimeout(timer);
      socket.removeListener("error", fail);
      done(socket);
    });
  });
}

/** A proxy with no server behind it hangs up at once; the driver takes that for no error, and would call for ever. */
function hangingUp(socket: Socket): Socket {
  const { bytesRead } = socket;
  socket.once("end", () => {
    if (socket.bytesRead > bytesRead) return;
    socket.destroy(connectionLost("The server hung up"));
  });
  return socket;
}

function noAnswer(): Error {
  return Object.assign(new Error("The server does not answer"), { code: "CONNECT_TIMEOUT" });
}
