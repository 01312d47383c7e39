import { Buffer } from "node:buffer";
import fc from "fast-check";
import { expect, test } from "vitest";
import { BemiError } from "../src/errors.ts";
import { decode, formatLsn, parseLsn } from "../src/worker/decode.ts";
import { changeId, copyLine } from "../src/worker/encode.ts";
import { hasUnstorableEscape, isJsonb, objectMembers, parseMessage } from "../src/worker/message.ts";
import { binaryCopy } from "../src/worker/peek.ts";

const text = (value: string): number[] => [...Buffer.from(value), 0];
const INSERT = Buffer.from([0x49, 0, 0, 0, 7, 0x4e, 0, 2, 0x74, 0, 0, 0, 1, 0x61, 0x6e]);
const RELATION = Buffer.from([
  ...[0x52, 0, 0, 0, 7],
  ...text("public"),
  ...text("todos"),
  ...[0x66, 0, 1, 1],
  ...text("id"),
  ...[0, 0, 0, 20, 0xff, 0xff, 0xff, 0xff],
]);

test("a message is decoded field by field", () => {
  expect(decode(RELATION)).toEqual({
    kind: "relation",
    oid: 7,
    schema: "public",
    name: "todos",
    identity: "f",
    columns: [{ name: "id", type: 20, isKey: true }],
  });
  expect(decode(INSERT)).toEqual({ kind: "insert", relation: 7, after: ["a", null] });
});

test("whatever is cut off, left over, unknown or random is a clear error, and never anything else", () => {
  for (const whole of [INSERT, RELATION]) {
    for (let length = 0; length < whole.length; length++) {
      expect(() => decode(whole.subarray(0, length))).toThrow(BemiError);
    }
    expect(() => decode(Buffer.concat([whole, Buffer.from([0])]))).toThrow(/left over/);
  }
  fc.assert(
    fc.property(fc.constantFrom(..."BCRIUDTMOYSE"), fc.uint8Array({ maxLength: 60 }), (kind, rest) => {
      try {
        decode(Buffer.concat([Buffer.from(kind), rest]));
      } catch (error) {
        expect(error).toBeInstanceOf(BemiError);
        expect((error as BemiError).code).toBe("decode_failed");
      }
    }),
    { numRuns: 3000 },
  );
});

test("an LSN is unsigned, and written as PostgreSQL writes it", () => {
  fc.assert(fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), (lsn) => {
    expect(parseLsn(formatLsn(lsn))).toBe(lsn);
  }));
  expect(formatLsn(0x16b374d848n)).toBe("16/B374D848");
});

test("binary COPY is split into its rows, wherever the chunks break", () => {
  const row = (lsn: bigint, data: Buffer): Buffer => {
    const head = Buffer.alloc(18);
    head.writeInt16BE(2, 0);
    head.writeInt32BE(8, 2);
    head.writeBigUInt64BE(lsn, 6);
    head.writeInt32BE(data.length, 14);
    return Buffer.concat([head, data]);
  };
  const header = Buffer.concat([Buffer.from("PGCOPY\n\xff\r\n\0", "latin1"), Buffer.alloc(8)]);
  fc.assert(fc.property(
    fc.array(fc.tuple(fc.bigInt({ min: 0n, max: 2n ** 63n }), fc.uint8Array({ maxLength: 30 })), {
      maxLength: 8,
    }),
    fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 30 }),
    (rows, cuts) => {
      const end = Buffer.from([0xff, 0xff]);
      const whole = Buffer.concat([header, ...rows.map(([lsn, data]) => row(lsn, Buffer.from(data))), end]);
      const parse = binaryCopy();
      const found: [bigint, string][] = [];
      for (let at = 0, i = 0; at < whole.length; i++) {
        const size = cuts[i % cuts.length] ?? 1;
        for (const [lsn, data] of parse(whole.subarray(at, at + size))) {
          found.push([lsn, data.toString("hex")]);
        }
        at += size;
      }
      expect(found).toEqual(rows.map(([lsn, data]) => [lsn, Buffer.from(data).toString("hex")]));
    },
  ));
});

/** As `format('%L')` writes it. */
const quoted = (text: string): string =>
  `${text.includes("\\") ? "E" : ""}'${text.replaceAll("\\", "\\\\").replaceAll("'", "''")}'`;
const message = (
  { application = "web", statement = "", context = "", claims = "", client = "" }: Readonly<
    Record<string, string>
  >,
): Buffer =>
  Buffer.from(
    `1 10 42 UPDATE ${
      ["app", "none", application, context, claims, client].map(quoted).join(" ")
    } NULL ${statement}`,
  );

// Quotes, backslashes, blanks and NULL more often than by chance.
const anyText = fc.oneof(
  fc.string({ unit: "binary" }),
  fc.array(fc.constantFrom("'", "\\", " ", "E", "NULL", "a")).map((parts) => parts.join("")),
);

test("no field of a message can pass for another, whatever it holds", () => {
  fc.assert(fc.property(anyText, anyText, (name, statement) => {
    const [safeName, safeStatement] = [name, statement].map((value) => Buffer.from(value).toString());
    const parsed = parseMessage(message({ application: safeName ?? "", statement: safeStatement ?? "" }));
    const context = JSON.parse(parsed?.context ?? "null") as Record<string, unknown>;
    expect(context.db).toEqual({ user: "app", role: "app", pid: 42, application_name: safeName });
    expect(context.SQL).toBe(safeStatement || undefined);
    expect(parsed?.seal).toBeUndefined();
  }));
  fc.assert(fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => {
    parseMessage(Buffer.from([0x31, ...bytes]));
  }));
});

test("numbers and order of a context stay as they were written; what is no object is marked", () => {
  const context =
    '{"big": 12345678901234567890, "price": 1.50, "db": {"user": "forged"}, "jwt": 1, "nested": {"a": [1, "}"]}}';
  expect(parseMessage(message({ context, claims: '{"sub": "7"}', client: '{"page": "/"}' }))?.context).toBe(
    '{"big": 12345678901234567890, "price": 1.50, "nested": {"a": [1, "}"]}, "jwt": {"sub": "7"}, "client": {"page": "/"}, ' +
      '"db": {"user": "app", "role": "app", "pid": 42, "application_name": "web"}}',
  );
  for (const wrong of ["[1]", "no", '{"a": "\\u0000"}', "{"]) {
    const parsed = parseMessage(message({ context: wrong }));
    expect(JSON.parse(parsed?.context ?? "")).toMatchObject({ db: { context_error: expect.any(String) } });
  }
});

test("the members of an object are found in whatever JSON there is", () => {
  fc.assert(fc.property(
    fc.dictionary(fc.string(), fc.jsonValue()),
    fc.constantFrom(undefined, 1, "\t"),
    (object, space) => {
      const json = JSON.stringify(object, null, space);
      if (!isJsonb(json)) return;
      const members = objectMembers(json) ?? [];
      expect(members.map(([key]) => key)).toEqual(Object.keys(object));
      for (const [key, value] of members) {
        expect(JSON.parse(value)).toEqual(JSON.parse(JSON.stringify(object[key])));
      }
    },
  ));
});

test("escapes that jsonb refuses are found, and no others", () => {
  for (
    const bad of [
      '"\\u0000"',
      '"\\ud800"',
      '"\\ud800x"',
      '"\\ud800\\ud800"',
      '"\\udc00"',
      '"\\\\\\u0000"',
      '"\\ud800\\n"',
    ]
  ) {
    expect(hasUnstorableEscape(bad), bad).toBe(true);
  }
  for (const good of ['"\\\\u0000"', '"\\ud83d\\ude00"', '"\\u00e9"', '"u0000"', '"\\\\\\\\u0000"']) {
    expect(hasUnstorableEscape(good), good).toBe(false);
  }
});

test("an id follows from source, commit and index, and is a UUIDv7 of the commit's time", () => {
  const at = { commitLsn: 0x16b374d848n, committedAt: 846_000_000_123_456n, xid: 5 };
  const change = { transaction: at, index: 3 } as never;
  const origin = { sourceId: 1, database: "app", seed: 99, queuedAt: "" };
  const id = changeId(change, origin);
  expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  expect(changeId(change, origin)).toBe(id);
  const others = [
    changeId({ transaction: at, index: 4 } as never, origin),
    changeId({ transaction: { ...at, commitLsn: at.commitLsn + 8n }, index: 3 } as never, origin),
    changeId(change, { ...origin, seed: 98 }),
  ];
  expect(new Set([id, ...others]).size).toBe(4);
  expect(parseInt(id.replace("-", "").slice(0, 12), 16)).toBe(Date.UTC(2000, 0, 1) + 846_000_000_123);
});

test("a line of COPY escapes what COPY reads", () => {
  const line = copyLine({
    transaction: { commitLsn: 1n, committedAt: 0n, xid: 1 },
    index: 0,
    position: 1n,
    schema: "a\tb",
    table: "c\nd",
    operation: "CREATE",
    key: "\\N",
    formerKey: null,
    before: "{}",
    after: '{"a": "\\n"}',
    context: "{}",
    isUnstorable: false,
  }, { sourceId: 1, database: "x\\y", seed: 1, queuedAt: "now" });
  expect(line.split("\t").slice(1, 9)).toEqual([
    "x\\\\y",
    "a\\tb",
    "c\\nd",
    "\\\\N",
    "\\N",
    "CREATE",
    "{}",
    '{"a": "\\\\n"}',
  ]);
});
