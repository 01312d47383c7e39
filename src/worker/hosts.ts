import type { Socket } from "node:net";
import { BemiError } from "../errors.ts";

/** Where a server may be: a host and a port, or a Unix socket. */
export interface Address {
  readonly host: string;
  readonly port: number;
  readonly path?: string | undefined;
}

/** What postgres.js passes to a socket factory of its options, once it has parsed them. */
export interface DriverOptions {
  host: readonly string[];
  readonly port: readonly number[];
  /** A Unix socket. */
  readonly path?: string | undefined;
  readonly target_session_attrs?: string | null;
}

/** Options of postgres.js for connections of one's own. */
export interface ConnectionFactory {
  readonly socket: (driver: DriverOptions) => Promise<Socket>;
  readonly onclose: () => void;
}

/**
 * Opens a connection to the first host that answers. The driver asks again where one hung up, or is not what
 * `target_session_attrs` says: then the next has its turn, until there is none.
 *
 * @throws by `socket`: why the last host could not be had, or `CONNECT_NO_HOST`
 */
export function eachInTurn(open: (address: Address) => Promise<Socket>): ConnectionFactory {
  let addresses: readonly Address[] | undefined;
  let next = 0;
  return {
    socket: async (driver) => {
      const { host, port, path, target_session_attrs: wanted } = driver;
      addresses ??= path
        ? [{ host: path, port: 0, path }]
        : host.map((name, i) => ({ host: name, port: port[i % port.length] as number }));
      const [first = ""] = host;
      let failure: unknown = Object.assign(new Error("None of the hosts is what is asked for"), {
        code: "CONNECT_NO_HOST",
      });
      while (next < addresses.length) {
        try {
          const socket = await open(addresses[next++] as Address);
          // It comes back for another as long as it knows of one.
          if (wanted) driver.host = [first, first];
          return socket;
        } catch (error) {
          failure = error;
        }
      }
      next = 0;
      // As long as it knows of another, it would keep to itself that this failed, and wait for ever.
      driver.host = [first];
      throw failure;
    },
    onclose: () => void (next = 0),
  };
}

/** libpq's, by which a URL with several hosts says which of them is meant. */
export const HOST_PARAMETER = "target_session_attrs";

/**
 * What the driver makes of libpq's words: it has none for `any`, and would take a standby for one that is written.
 *
 * @throws {BemiError} `usage` where libpq has no such word
 */
export function wantedHost(said: string | null): string | undefined {
  switch (said) {
    case null:
    case "":
    case "any":
      return undefined;
    case "read-write":
    case "primary":
      return "primary";
    case "read-only":
    case "standby":
    case "prefer-standby":
      return said;
    default:
      throw new BemiError("usage", `${HOST_PARAMETER} is none that there is`, {
        hint: "Say any, read-write, read-only, primary, standby or prefer-standby.",
      });
  }
}
