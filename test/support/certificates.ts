// What the package below wants to find.
import "reflect-metadata";
import { chmodSync, chownSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { webcrypto } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as x509 from "@peculiar/x509";
import { unprivileged } from "./servers.ts";

/** An authority of a test's own, and what it signed, as files in PEM format. */
export interface Certificates extends Disposable {
  readonly ca: string;
  /** Another authority, which signed nothing here. */
  readonly otherCa: string;
  /** Of the host `localhost`, by name alone. */
  readonly server: { readonly cert: string; readonly key: string };
  readonly client: { readonly cert: string; readonly key: string };
  /** A further file beside them, that the server may read. */
  write(name: string, text: string): string;
}

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };

/** Makes them anew, valid for a day. */
export async function certificates(): Promise<Certificates> {
  x509.cryptoProvider.set(webcrypto as Crypto);
  const folder = mkdtempSync(join(tmpdir(), "bemi-tls-"));
  const user = unprivileged();
  if (user) chownSync(folder, user.uid, user.gid);
  // The worker of the test reads them as well, and may be another user than the server.
  chmodSync(folder, 0o755);
  const write = (name: string, text: string, mode = 0o644): string => {
    const path = join(folder, name);
    writeFileSync(path, text);
    // The server refuses a key that others may read.
    chmodSync(path, mode);
    if (user) chownSync(path, user.uid, user.gid);
    return path;
  };
  const ca = await authority("Todo authority");
  const signed = async (name: string): Promise<{ cert: string; key: string }> => {
    const keys = await keyPair();
    const certificate = await x509.X509CertificateGenerator.create({
      ...validity(),
      subject: `CN=${name}`,
      issuer: ca.certificate.subject,
      publicKey: keys.publicKey,
      signingKey: ca.keys.privateKey,
      signingAlgorithm: ALGORITHM,
      extensions: [new x509.SubjectAlternativeNameExtension([{ type: "dns", value: name }])],
    });
    const key = await webcrypto.subtle.exportKey("pkcs8", keys.privateKey);
    return {
      cert: write(`${name}.crt`, certificate.toString("pem")),
      key: write(`${name}.key`, x509.PemConverter.encode(key, "PRIVATE KEY"), 0o600),
    };
  };
  return {
    ca: write("ca.crt", ca.certificate.toString("pem")),
    otherCa: write("other.crt", (await authority("Somebody else")).certificate.toString("pem")),
    server: await signed("localhost"),
    client: await signed("postgres"),
    write,
    [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }),
  };
}

async function authority(
  name: string,
): Promise<{ certificate: x509.X509Certificate; keys: webcrypto.CryptoKeyPair }> {
  const keys = await keyPair();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    ...validity(),
    name: `CN=${name}`,
    keys,
    signingAlgorithm: ALGORITHM,
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
    ],
  });
  return { certificate, keys };
}

function keyPair(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]) as Promise<
    webcrypto.CryptoKeyPair
  >;
}

function validity(): { notBefore: Date; notAfter: Date } {
  const day = 86_400_000;
  return { notBefore: new Date(Date.now() - day), notAfter: new Date(Date.now() + day) };
}
