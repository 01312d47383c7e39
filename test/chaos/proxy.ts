import { pause } from "./deadline.ts";
import { createConnection, createServer, type Socket } from "node:net";
import type { AddressInfo } from "node:net";

/** A network of one's own between a client and a server, to be cut, delayed, throttled and silenced. */
export interface Proxy extends Disposable {
  readonly port: number;
  /** Milliseconds that each piece takes on its way, either way. */
  delay: number;
  /** Bytes per second, either way, of each connection; 0 is without limit. */
  rate: number;
  /** Passes nothing on, and keeps the connections. */
  isSilent: boolean;
  /** Breaks every connection. */
  cut(): void;
}

export async function openProxy(target: () => { host: string; port: number }): Promise<Proxy> {
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const { host, port } = target();
    const upstream = createConnection({ host, port, noDelay: true });
    for (const [from, to] of [[client, upstream], [upstream, client]] as const) {
      sockets.add(from);
      from.on("error", () => {}).on("close", () => {
        sockets.delete(from);
        to.destroy();
      });
      void pump(from, to);
    }
  });
  const pump = async (from: Socket, to: Socket): Promise<void> => {
    try {
      for await (const chunk of from as AsyncIterable<Uint8Array>) {
        if (proxy.delay > 0) await pause(proxy.delay);
        if (proxy.rate > 0) await pause(chunk.length / proxy.rate * 1000);
        while (proxy.isSilent && !from.destroyed) await pause(20);
        if (!to.write(chunk)) {
          await roomIn(to);
        }
      }
    } catch {
      // Cut.
    }
    to.end();
  };
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const proxy: Proxy = {
    port: (server.address() as AddressInfo).port,
    delay: 0,
    rate: 0,
    isSilent: false,
    cut: () => {
      for (const socket of sockets) socket.destroy();
    },
    [Symbol.dispose]: () => {
      proxy.cut();
      server.close();
    },
  };
  return proxy;
}

/** Until a socket takes more, or is closed. */
function roomIn(socket: Socket): Promise<void> {
  return new Promise((done) => {
    const finish = (): void => {
      socket.off("drain", finish).off("close", finish);
      done();
    };
    socket.on("drain", finish).on("close", finish);
  });
}
