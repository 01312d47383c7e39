import { BemiError } from "../errors.ts";
import { HOST_PARAMETER, wantedHost } from "./hosts.ts";

/** How far a connection is encrypted and its server known, as libpq's `sslmode` says it. */
export type TlsMode = "disable" | "prefer" | "require" | "verify-ca" | "verify-full";

/** What a target says of TLS (PostgreSQL documentation, 32.19 SSL Support). Files are named, not read. */
export interface TlsSettings {
  readonly mode: TlsMode;
  /** File of the authorities that are trusted; absent for the ones that the runtime trusts. */
  readonly rootCert?: string | undefined;
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
  readonly password?: string | undefined;
  /** Whether TLS begins without asking the server for it (PostgreSQL 17). */
  readonly isDirect: boolean;
  readonly minVersion?: string | undefined;
  /** Options of Node's for a TLS connection, where the target holds them as postgres.js takes them. */
  readonly options?: object | undefined;
}

/** libpq's parameters that are the client's own; postgres.js would send them to the server, which refuses them. */
const CLIENT_PARAMETERS = new Set(
  ("channel_binding fallback_application_name gssdelegation gssencmode gsslib hostaddr keepalives keepalives_count " +
    "keepalives_idle keepalives_interval krbsrvname load_balance_hosts passfile require_auth requirepeer service " +
    "ssl_max_protocol_version sslcertmode sslcompression sslcrl sslcrldir sslkeylogfile sslsni tcp_user_timeout " +
    // Prisma's.
    "connection_limit pgbouncer pool_timeout schema sslaccept").split(" "),
);

const TLS_PARAMETERS = [
  "ssl",
  "sslmode",
  "sslrootcert",
  "sslcert",
  "sslkey",
  "sslpassword",
  "sslnegotiation",
  "ssl_min_protocol_version",
] as const;

type Said = Partial<Record<(typeof TLS_PARAMETERS)[number], unknown>>;

/** libpq's, of which the driver knows only what stands before the question mark. */
const ADDRESS_PARAMETERS = ["host", "port", "user", "password", "dbname"];

/**
 * A target apart: what the driver shall know of it, and what is said of TLS.
 *
 * @throws {BemiError} `usage` where a parameter does not hold, or is not understood
 */
export function splitTarget(target: string | object): { rest: string | object; tls: TlsSettings } {
  const said: Said = {};
  if (typeof target === "string") {
    // The hosts may be several, which is no URL any more.
    const [address = "", query = ""] = target.split(/\?(.*)/s);
    const parameters = new URLSearchParams(query);
    for (const name of TLS_PARAMETERS) said[name] = parameters.get(name) ?? undefined;
    for (const name of [...parameters.keys()]) {
      if (ADDRESS_PARAMETERS.includes(name)) throw misplaced(name);
      if (CLIENT_PARAMETERS.has(name) || name in said) parameters.delete(name);
    }
    const wanted = wantedHost(parameters.get(HOST_PARAMETER));
    parameters.delete(HOST_PARAMETER);
    if (wanted !== undefined) parameters.set(HOST_PARAMETER, wanted);
    return { rest: parameters.size > 0 ? `${address}?${parameters}` : address, tls: settings(said) };
  }
  const rest: Record<string, unknown> = { ...target };
  for (const name of TLS_PARAMETERS) {
    said[name] = rest[name];
    delete rest[name];
  }
  return { rest, tls: settings(said) };
}

function misplaced(name: string): BemiError {
  return new BemiError("usage", `The URL has "${name}" as a parameter, which is not understood there`, {
    hint:
      "Write it as postgres://user:password@host:5432/database. For a Unix socket leave the host out, and set " +
      "PGHOST to the socket's folder.",
  });
}

function settings(said: Said): TlsSettings {
  const text = (name: keyof Said): string | undefined => {
    const value = said[name];
    return typeof value === "string" && value !== "" ? value : undefined;
  };
  const isSystem = text("sslrootcert") === "system";
  const rootCert = isSystem ? undefined : text("sslrootcert");
  const options = typeof said.ssl === "object" && said.ssl !== null ? said.ssl : undefined;
  const mode = modeOf(said.sslmode ?? (options ? "require" : said.ssl), isSystem);
  const isDirect = text("sslnegotiation") === "direct";
  if (isDirect && (mode === "prefer" || mode === "disable")) {
    throw new BemiError("usage", `sslnegotiation=direct does not go with sslmode=${mode}`, {
      hint: "Say sslmode=require, verify-ca or verify-full.",
    });
  }
  return {
    // As libpq: who names the authorities wants them asked.
    mode: mode === "require" && rootCert !== undefined ? "verify-ca" : mode,
    rootCert,
    cert: text("sslcert"),
    key: text("sslkey"),
    password: text("sslpassword"),
    isDirect,
    minVersion: text("ssl_min_protocol_version"),
    options,
  };
}

/** postgres.js' words are taken as well as libpq's. */
function modeOf(said: unknown, isSystem: boolean): TlsMode {
  if (isSystem && said !== undefined && said !== "verify-full") {
    throw new BemiError("usage", "sslrootcert=system goes with sslmode=verify-full alone", {
      hint: "Leave sslmode out, or say sslmode=verify-full.",
    });
  }
  switch (said) {
    case undefined:
    case null:
    case "":
      return isSystem ? "verify-full" : "prefer";
    case false:
    case "false":
    case "disable":
      return "disable";
    case "allow":
    case "prefer":
      return "prefer";
    case true:
    case "true":
    case "require":
      return "require";
    case "verify-ca":
    case "verify-full":
      return said;
    default:
      throw new BemiError("usage", "sslmode is none that there is", {
        hint: "Say disable, prefer, require, verify-ca or verify-full.",
      });
  }
}
