import type { Buffer } from "node:buffer";
import { BemiError } from "../errors.ts";

/** A log sequence number: unsigned 64 bits. */
export type Lsn = bigint;

/** One message as it comes: where it stands, and its bytes, valid until the next one. */
export type RawMessage = readonly [lsn: Lsn, data: Buffer];

/** One row's columns as PostgreSQL's text, in the relation's order; `null` is NULL, {@linkcode UNCHANGED} was not sent. */
export type Tuple = readonly (string | null | typeof UNCHANGED)[];

/** A TOAST value that the UPDATE did not touch, and so did not log. */
export const UNCHANGED: unique symbol = Symbol("unchanged");

/** Begin: a transaction, sent when it has committed. `commitLsn` is its commit record's LSN, the time µs since 2000. */
export interface Begin {
  readonly kind: "begin";
  readonly commitLsn: Lsn;
  readonly committedAt: bigint;
  readonly xid: number;
}

/** Commit: `endLsn` is the end of the commit record, and what to acknowledge. */
export interface Commit {
  readonly kind: "commit";
  readonly commitLsn: Lsn;
  readonly endLsn: Lsn;
}

export interface Relation {
  readonly kind: "relation";
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  /** `d` default, `n` nothing, `f` full, `i` index. */
  readonly identity: string;
  readonly columns: readonly Column[];
}

export interface Column {
  readonly name: string;
  readonly type: number;
  readonly isKey: boolean;
}

export interface Insert {
  readonly kind: "insert";
  readonly relation: number;
  readonly after: Tuple;
}

export interface Update {
  readonly kind: "update";
  readonly relation: number;
  /** Absent where the identity is not FULL and the key did not change. */
  readonly before: Tuple | undefined;
  /** `before` holds the key's columns alone. */
  readonly beforeIsKey: boolean;
  readonly after: Tuple;
}

export interface Delete {
  readonly kind: "delete";
  readonly relation: number;
  readonly before: Tuple;
  readonly beforeIsKey: boolean;
}

export interface Truncate {
  readonly kind: "truncate";
  readonly relations: readonly number[];
}

/** A logical message; `content` is a view of the input, valid until the next one is decoded. */
export interface LogicalMessage {
  readonly kind: "message";
  readonly isTransactional: boolean;
  readonly prefix: string;
  readonly content: Buffer;
}

/** Origin and Type: nothing is made of them. */
export interface Ignored {
  readonly kind: "origin" | "type";
}

export type PgoutputMessage =
  | Begin
  | Commit
  | Relation
  | Insert
  | Update
  | Delete
  | Truncate
  | LogicalMessage
  | Ignored;

/**
 * Decodes one message of pgoutput, protocol version 1
 * (PostgreSQL documentation, 55.9 Logical Replication Message Formats). Pure: bytes in, a message out.
 *
 * @throws {BemiError} `decode_failed` where it is malformed, truncated, of an unknown kind, or has bytes left over
 */
export function decode(bytes: Buffer): PgoutputMessage {
  const reader = new Reader(bytes);
  const message = decodeMessage(reader);
  reader.finish();
  return message;
}

function decodeMessage(reader: Reader): PgoutputMessage {
  const kind = reader.byte();
  switch (kind) {
    case 0x42: // B
      return { kind: "begin", commitLsn: reader.int64(), committedAt: reader.int64(), xid: reader.uint32() };
    case 0x43: { // C
      reader.byte();
      const commitLsn = reader.int64();
      const endLsn = reader.int64();
      reader.int64();
      return { kind: "commit", commitLsn, endLsn };
    }
    case 0x52: // R
      return relation(reader);
    case 0x49: // I
      return { kind: "insert", relation: reader.uint32(), after: (reader.expect("N"), tuple(reader)) };
    case 0x55: // U
      return update(reader);
    case 0x44: { // D
      const relation = reader.uint32();
      const image = reader.oneOf("KO");
      return { kind: "delete", relation, before: tuple(reader), beforeIsKey: image === "K" };
    }
    case 0x54: { // T
      const count = reader.uint32();
      reader.byte();
      const relations: number[] = [];
      for (let i = 0; i < count; i++) relations.push(reader.uint32());
      return { kind: "truncate", relations };
    }
    case 0x4d: { // M
      const isTransactional = (reader.byte() & 1) === 1;
      reader.int64();
      const prefix = reader.string();
      return { kind: "message", isTransactional, prefix, content: reader.bytes(reader.uint32()) };
    }
    case 0x4f: // O
      reader.int64();
      reader.string();
      return { kind: "origin" };
    case 0x59: // Y
      reader.uint32();
      reader.string();
      reader.string();
      return { kind: "type" };
    default:
      throw malformed(`unknown message kind ${kind}`);
  }
}

function relation(reader: Reader): Relation {
  const oid = reader.uint32();
  const schema = reader.string();
  const name = reader.string();
  const identity = String.fromCharCode(reader.byte());
  const count = reader.uint16();
  const columns: Column[] = [];
  for (let i = 0; i < count; i++) {
    const isKey = (reader.byte() & 1) === 1;
    const column = reader.string();
    const type = reader.uint32();
    reader.uint32();
    columns.push({ name: column, type, isKey });
  }
  // An empty name stands for pg_catalog.
  return { kind: "relation", oid, schema: schema || "pg_catalog", name, identity, columns };
}

function update(reader: Reader): Update {
  const relation = reader.uint32();
  const image = reader.oneOf("KON");
  const before = image === "N" ? undefined : tuple(reader);
  if (before) reader.expect("N");
  return { kind: "update", relation, before, beforeIsKey: image === "K", after: tuple(reader) };
}

function tuple(reader: Reader): Tuple {
  const count = reader.uint16();
  const values: (string | null | typeof UNCHANGED)[] = [];
  for (let i = 0; i < count; i++) {
    const kind = reader.byte();
    switch (kind) {
      case 0x74: // t
        values.push(reader.text(reader.uint32()));
        break;
      case 0x6e: // n
        values.push(null);
        break;
      case 0x75: // u
        values.push(UNCHANGED);
        break;
      default:
        throw malformed(`unknown value kind ${kind}`);
    }
  }
  return values;
}

/** Walks over the bytes of one message; every step checks that they are there. */
class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  byte(): number {
    return this.#bytes[this.#take(1)] as number;
  }

  uint16(): number {
    return this.#bytes.readUInt16BE(this.#take(2));
  }

  uint32(): number {
    return this.#bytes.readUInt32BE(this.#take(4));
  }

  int64(): bigint {
    return this.#bytes.readBigInt64BE(this.#take(8));
  }

  text(length: number): string {
    const at = this.#take(length);
    return this.#bytes.toString("utf8", at, at + length);
  }

  bytes(length: number): Buffer {
    const at = this.#take(length);
    return this.#bytes.subarray(at, at + length);
  }

  /** Text that ends with a NUL. */
  string(): string {
    const end = this.#bytes.indexOf(0, this.#at);
    if (end < 0) throw malformed("a text has no end");
    const text = this.text(end - this.#at);
    this.#at++;
    return text;
  }

  oneOf(kinds: string): string {
    const kind = String.fromCharCode(this.byte());
    if (!kinds.includes(kind)) throw malformed("an unknown tuple kind");
    return kind;
  }

  expect(kind: string): void {
    this.oneOf(kind);
  }

  finish(): void {
    if (this.#at !== this.#bytes.length) throw malformed("bytes are left over");
  }

  #take(length: number): number {
    const at = this.#at;
    if (at + length > this.#bytes.length) throw malformed("it is truncated");
    this.#at = at + length;
    return at;
  }
}

function malformed(what: string): BemiError {
  return new BemiError("decode_failed", `A message of pgoutput cannot be decoded: ${what}`, {
    hint:
      "Check that the slot's plugin is pgoutput, protocol version 1, and the server PostgreSQL 14 or later.",
  });
}

/** `16/B374D848`, as PostgreSQL writes it. */
export function formatLsn(lsn: Lsn): string {
  return `${(lsn >> 32n).toString(16).toUpperCase()}/${(lsn & 0xffffffffn).toString(16).toUpperCase()}`;
}

export function parseLsn(text: string): Lsn {
  const [high = "", low = ""] = text.split("/");
  return (BigInt(`0x${high}`) << 32n) | BigInt(`0x${low}`);
}
