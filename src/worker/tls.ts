import { Buffer } from "node:buffer";
import type { Socket } from "node:net";
import type { ConnectionOptions } from "node:tls";
import { BemiError } from "../errors.ts";
import { connectionLost } from "./sql.ts";
import type { TlsSettings } from "./tls-settings.ts";

/** PostgreSQL documentation, 54.7 Message Formats: SSLRequest. */
const SSL_REQUEST = Buffer.from([0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]);

const YES = 0x53; // S

/**
 * Goes over to TLS as the settings say; returns the socket as it is where they do not insist and the server has none.
 *
 * @throws {BemiError} `connection_failed` where the server has no TLS, or is not the one to be trusted
 */
export async function secured(socket: Socket, host: string, tls: TlsSettings): Promise<Socket> {
  if (tls.mode === "disable") return socket;
  if (!tls.isDirect && await askForTls(socket) !== YES) {
    if (tls.mode === "prefer") return socket;
    socket.destroy();
    throw new BemiError("connection_failed", `The server offers no TLS, and sslmode is "${tls.mode}"`, {
      hint: "Turn ssl on in postgresql.conf, connect to the server itself where a pooler is in between, " +
        "or say sslmode=prefer, which then sends everything readable.",
    });
  }
  const { connect, checkServerIdentity } = await import("node:tls");
  const isVerified = tls.mode.startsWith("verify-");
  const options: ConnectionOptions = {
    socket,
    // A name for the server to choose its certificate by; addresses are none.
    ...(/^[\d.]+$|:/.test(host) ? {} : { servername: host }),
    ...(tls.isDirect ? { ALPNProtocols: ["postgresql"] } : {}),
    rejectUnauthorized: isVerified,
    checkServerIdentity: (_, certificate) =>
      tls.mode === "verify-full" ? checkServerIdentity(host, certificate) : undefined,
    ...await files(tls),
    ...(tls.options ? { rejectUnauthorized: true, checkServerIdentity, host, ...tls.options } : {}),
  };
  // It would wait for ever for a server that went meanwhile.
  if (socket.destroyed) throw connectionLost("The server hung up");
  return await new Promise((done, fail) => {
    const encrypted = connect(options);
    const give = (error: Error): void => {
      encrypted.destroy();
      fail(explained(error, tls));
    };
    encrypted.once("error", give);
    encrypted.once("secureConnect", () => {
      encrypted.removeListener("error", give);
      done(encrypted);
    });
  });
}

/** The server's answer is one byte, and nothing comes behind it before TLS has begun. */
function askForTls(socket: Socket): Promise<number | undefined> {
  return new Promise((done, fail) => {
    const hungUp = (error?: unknown): void => fail(error || connectionLost("The server hung up"));
    socket.once("error", hungUp).once("close", hungUp).once("end", hungUp);
    socket.once("data", (answer: Buffer) => {
      socket.off("error", hungUp).off("close", hungUp).off("end", hungUp);
      done(answer.length === 1 ? answer[0] : undefined);
    });
    socket.write(SSL_REQUEST);
  });
}

async function files(tls: TlsSettings): Promise<ConnectionOptions> {
  const named = Object.entries({ ca: tls.rootCert, cert: tls.cert, key: tls.key });
  const options: Record<string, unknown> = {};
  for (const [name, path] of named) {
    if (path !== undefined) options[name] = await read(path, name === "ca" ? "sslrootcert" : `ssl${name}`);
  }
  if (tls.password !== undefined) options.passphrase = tls.password;
  if (tls.minVersion !== undefined) options.minVersion = tls.minVersion;
  return options;
}

async function read(path: string, parameter: string): Promise<Buffer> {
  const { readFile } = await import("node:fs/promises");
  return await readFile(path).catch((error: unknown) => {
    throw new BemiError("usage", `The file that ${parameter} names cannot be read: ${path}`, {
      hint: "Name a file in PEM format that this user may read.",
      cause: error,
    });
  });
}

function explained(error: Error & { code?: string }, tls: TlsSettings): unknown {
  const { code = "" } = error;
  if (code === "ERR_TLS_CERT_ALTNAME_INVALID") {
    return new BemiError("connection_failed", "The server's certificate is for another host", {
      hint:
        "Connect by a name that the certificate holds, or say sslmode=verify-ca, which checks who signed it alone.",
      cause: error,
    });
  }
  if (/CERT|SIGNED|VERIFY|ISSUER|CRL/.test(code) && tls.mode !== "prefer") {
    return new BemiError("connection_failed", `The server's certificate is not trusted (${code})`, {
      hint: tls.rootCert === undefined
        ? "Name the authority that signed it: sslrootcert=/path/to/ca.pem in the URL, or PGSSLROOTCERT."
        : "sslrootcert has to name the authority that signed it, and the certificate must not have expired.",
      cause: error,
    });
  }
  if (/^ERR_(?:OSSL|SSL|TLS)/.test(code)) {
    return new BemiError("connection_failed", `TLS with the server could not begin (${code})`, {
      hint:
        "See that sslcert, sslkey and sslrootcert are PEM files that belong together, and what the server's log says.",
      cause: error,
    });
  }
  return error;
}
