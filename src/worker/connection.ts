import type { Socket } from "node:net";
import { BemiError } from "../errors.ts";
import { type DriverOptions, eachInTurn } from "./hosts.ts";
import type { SocketWatch } from "./socket-watch.ts";
import { connectionLost, guarded, type WorkerSql } from "./sql.ts";
import { splitTarget, type TlsMode } from "./tls-settings.ts";
import { isWorkerd } from "./workerd.ts";

/**
 * One connection that prepares nothing and asks nothing of its own, so that it works behind a pooler too. It is not made
 * again: once it is gone, whatever is asked of it fails at once.
 *
 * @param settings parameters of the session, as the startup packet takes them
 */
export async function openConnection(
  target: string | object,
  settings: Readonly<Record<string, string>> = {},
  watch?: Pick<SocketWatch, "opened">,
): Promise<WorkerSql> {
  const { default: postgres } = await import("postgres").catch((error: unknown) => {
    throw new BemiError("missing_package", "The worker needs the package postgres", {
      hint: "Install it: npm install postgres",
      cause: error,
    });
  });
  const { rest, tls } = splitTarget(target);
  let socket: Socket | undefined;
  let isOver = false;
  const inTurn = eachInTurn(async (address) => {
    const { openSocket } = await import("./socket.ts");
    socket = await openSocket(address, tls);
    watch?.opened(socket);
    return socket;
  });
  const opener = async (driver: DriverOptions): Promise<Socket> => {
    try {
      if (isOver) throw connectionLost();
      return await inTurn.socket(driver);
    } catch (error) {
      isOver = true;
      throw error;
    }
  };
  const options = {
    max: 1,
    prepare: false,
    fetch_types: false,
    idle_timeout: 0,
    max_lifetime: null,
    connect_timeout: 15,
    onnotice: () => {},
    onclose: () => void (isOver = true),
    // On workerd the driver's own is the only one that can do TLS.
    ...(isWorkerd ? { ssl: tls.options ?? driverMode(tls.mode) } : { socket: opener, ssl: false }),
    connection: { application_name: "bemi worker", ...settings },
  };
  const sql = typeof rest === "string"
    ? postgres(rest, options as object)
    : postgres({ ...rest, ...options } as object);
  return guarded(sql as unknown as WorkerSql, () => isOver || (socket?.destroyed ?? false));
}

/** There a certificate is always verified, as far as its name, by the authorities that Cloudflare trusts. */
function driverMode(mode: TlsMode): string | false {
  return mode === "disable" || mode === "prefer" ? false : mode;
}
