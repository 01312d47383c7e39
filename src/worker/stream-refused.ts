import { BemiError } from "../errors.ts";

/** The server, or what stands in front of it, does not stream to this worker. */
export class StreamRefused extends Error {
  readonly code: string;

  constructor(code: string, cause: unknown) {
    super("Streaming was refused", { cause });
    this.code = code;
  }

  explained(): BemiError {
    return new BemiError("wal_unavailable", `Streaming was refused (${this.code})`, {
      hint: REMEDIES[this.code] ?? "Use --mode auto or --mode poll, which need no replication connection.",
      cause: this.cause,
    });
  }
}

const REMEDIES: Readonly<Record<string, string>> = {
  "42501": "As a superuser: alter role … replication. Or use --mode poll.",
  "28000": "Let the role connect for replication in pg_hba.conf. Or use --mode poll.",
  "08P01": "Connect to the server itself, not to its pooler. Or use --mode poll.",
  "53300": "Raise max_wal_senders. Or use --mode poll.",
};
