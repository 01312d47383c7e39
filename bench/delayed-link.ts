import { type AddressInfo, connect, createServer, type Socket } from "node:net";

/** A link on which each byte arrives this many milliseconds later, as on a long cable: what is sent at once arrives at once. */
export async function openDelayedLink(
  to: number,
  delay: number,
): Promise<Disposable & { readonly port: number }> {
  const sockets = new Set<Socket>();
  const server = createServer({ noDelay: true }, (near) => {
    const far = connect({ port: to, host: "127.0.0.1", noDelay: true });
    for (const [from, onto] of [[near, far], [far, near]] as const) {
      sockets.add(from);
      from.on("data", (chunk) => setTimeout(() => onto.write(chunk), delay))
        .on("close", () => setTimeout(() => onto.destroy(), delay)).on("error", () => {});
    }
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  return {
    port: (server.address() as AddressInfo).port,
    [Symbol.dispose]: () => {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}
