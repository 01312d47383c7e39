/** A type of a column, with values that are hard somewhere, as SQL expressions. */
export interface ColumnType {
  /** `@` stands for the scenario's schema. */
  readonly sql: string;
  readonly values: readonly string[];
  /** Whether it can be a primary key. */
  readonly isKey?: boolean;
  readonly needs?: "hstore" | "citext";
}

const TEXTS: readonly string[] = [
  "'plain'",
  "''",
  "' '",
  "'NULL'",
  "'null'",
  "E'tab\\tnew\\nline\\r \\\\ \"quote\" '' {a,b} (c,d)'",
  "E'\\\\N'",
  "E'\\\\.'",
  "repeat('long ', 3000)",
  "(select string_agg(md5(g::text), '') from generate_series(1, 300) as g)",
  "'ünïcode'",
];

/**
 * All built-in types that a column can have, two of contrib, and a scenario's own; `_mod` is with a modifier. Without
 * those that no text is read as: gtsvector, and what pg_statistic_ext_data and pg_brin hold.
 */
export const COLUMN_TYPES: Readonly<Record<string, ColumnType>> = {
  bool: { sql: "boolean", values: ["true", "false"], isKey: true },
  int2: { sql: "smallint", values: ["-32768", "32767", "0"], isKey: true },
  int4: { sql: "integer", values: ["1", "2", "3", "-2147483648", "2147483647"], isKey: true },
  int8: {
    sql: "bigint",
    values: ["9223372036854775807", "-9223372036854775808", "9007199254740993"],
    isKey: true,
  },
  float4: {
    sql: "real",
    values: ["1.1", "'NaN'", "'-Infinity'", "1e20", "'-0'", "1e-30", "16777217", "0.3"],
    isKey: true,
  },
  float8: {
    sql: "double precision",
    values: [
      "0.1::float8 + 0.2::float8",
      "0.3",
      "'Infinity'",
      "1e300",
      "5e-324",
      "'-0'",
      "'NaN'",
      "1e15",
      "1e16",
      "123456789012345680",
    ],
    isKey: true,
  },
  numeric: {
    sql: "numeric",
    values: [
      "1.50",
      "1.5",
      "1",
      "1.0",
      "0.00",
      "'NaN'",
      "'Infinity'",
      "'-Infinity'",
      "123456789012345678901234567890.123456789",
      "-0.000001",
      "1e50",
      "1e-50",
      "repeat('9', 1000)",
      "'0.' || repeat('1', 1000)",
    ],
    isKey: true,
  },
  numeric_mod: { sql: "numeric(12,2)", values: ["1.5", "-0.004", "9999999999.99"], isKey: true },
  money: { sql: "money", values: ["'$1,234.56'", "'-92233720368547758.08'", "0"], isKey: true },
  oid: { sql: "oid", values: ["4294967295", "0", "16384"], isKey: true },
  text: { sql: "text", values: TEXTS, isKey: false },
  varchar: { sql: "varchar", values: TEXTS },
  varchar_mod: { sql: "varchar(5)", values: ["'ab '", "''", "'abcde'"], isKey: true },
  bpchar: { sql: "char(5)", values: ["'ab'", "''", "'abcde'", "'é'"], isKey: true },
  char: { sql: '"char"', values: ["'x'", "''", "'\\'"] },
  name: { sql: "name", values: ["'a name'", "''", "repeat('x', 70)"], isKey: true },
  bytea: { sql: "bytea", values: ["'\\x00ff10'", "''", "'\\x5c'", "decode(repeat('00ff', 4000), 'hex')"] },
  uuid: {
    sql: "uuid",
    values: ["'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "'00000000-0000-0000-0000-000000000000'"],
    isKey: true,
  },
  date: {
    sql: "date",
    values: [
      "'2026-02-28'",
      "'infinity'",
      "'-infinity'",
      "'0044-03-15 BC'",
      "'12345-01-01'",
      "'4713-01-01 BC'",
    ],
    isKey: true,
  },
  time: { sql: "time", values: ["'12:34:56.789'", "'24:00'", "'00:00:00.000001'"], isKey: true },
  timetz: { sql: "timetz", values: ["'12:34:56+05:30'", "'00:00:00.1-15:59:59'", "'24:00+00'"], isKey: true },
  timestamp: {
    sql: "timestamp",
    values: [
      "'2026-11-01 12:00:00.123456'",
      "'2026-11-01'",
      "'infinity'",
      "'-infinity'",
      "'0044-03-15 01:02:03 BC'",
      "'12345-06-07 08:09:10.1'",
      "'4713-01-01 00:00 BC'",
      "'1999-12-31 23:59:59.999999'",
    ],
    isKey: true,
  },
  timestamp_mod: { sql: "timestamp(3)", values: ["'2026-11-01 12:00:00.9996'", "'2026-11-01 00:00:00.01'"] },
  timestamptz: {
    sql: "timestamptz",
    values: [
      "'2026-11-01 12:00:00.5+02'",
      "'2026-03-29 01:30:00+00'",
      "'-infinity'",
      "'infinity'",
      "'0044-03-15 01:02:03+00 BC'",
      "'12345-06-07 00:00+00'",
      "'1883-11-18 12:00:00.000001-07:52:58'",
      "'294276-12-31 23:59:59+00'",
    ],
    isKey: true,
  },
  interval: {
    sql: "interval",
    values: [
      "'1 year 2 mons -3 days 04:05:06.7'",
      "'-1 mons +2 days'",
      "'0'",
      "'-00:00:00.000001'",
      "'178000000 years'",
    ],
    isKey: true,
  },
  interval_mod: { sql: "interval year to month", values: ["'1 year 2 mons 3 days'", "'-14 mons'"] },
  inet: {
    sql: "inet",
    values: ["'10.0.0.1/8'", "'10.0.0.1'", "'::ffff:1.2.3.4/128'", "'fe80::1/64'"],
    isKey: true,
  },
  cidr: { sql: "cidr", values: ["'10.0.0.0/8'", "'::/0'"], isKey: true },
  macaddr: { sql: "macaddr", values: ["'08:00:2b:01:02:03'"], isKey: true },
  macaddr8: { sql: "macaddr8", values: ["'08:00:2b:01:02:03:04:05'"], isKey: true },
  bit: { sql: "bit(3)", values: ["B'101'", "B'000'"] },
  varbit: { sql: "varbit", values: ["B'10101'", "B''"] },
  xml: {
    sql: "xml",
    values: ["'<a b=\"c\">d &amp; e</a>'", "xmlparse(content 'text <b/>')", "'<?xml version=\"1.0\"?><x/>'"],
  },
  json: {
    sql: "json",
    values: [
      '\'{"a": 12345678901234567890, "b": [1.50, null], "a": 2}\'',
      "E' [1 ,\\n 2.0e1]\\t'",
      "'null'",
      "'\"text\"'",
      '\'{"": {"a b": "\\u00e9\\ud83d\\ude00", "x": 1e3}}\'',
      "'1.10'",
      "'{}'",
    ],
  },
  jsonb: {
    sql: "jsonb",
    values: [
      "'{\"a\": 12345678901234567890.10}'",
      "'\"text\"'",
      "'null'",
      "'[]'",
      "'1.10'",
      '\'{"b":1,"a":{"b":[{}]}}\'',
    ],
  },
  jsonpath: { sql: "jsonpath", values: ["'$.a[*] ? (@ > 1)'", "'strict $'"] },
  tsvector: { sql: "tsvector", values: ["'a:1 b:2A,3'", "''", "'''it''''s'':1'"] },
  tsquery: { sql: "tsquery", values: ["'a & !b'", "'a <-> b | c:*'"] },
  int4range: { sql: "int4range", values: ["'[1,5)'", "'empty'", "'(,)'"], isKey: true },
  int8range: { sql: "int8range", values: ["'[1,9223372036854775807)'"] },
  numrange: { sql: "numrange", values: ["'(1.50,2.0]'", "'[0,0]'"] },
  tsrange: {
    sql: "tsrange",
    values: ["'[2026-01-01 00:00,2026-01-02 03:04:05.6)'", "'[-infinity,infinity]'"],
  },
  tstzrange: {
    sql: "tstzrange",
    values: ["'[2026-01-01 00:00+00,)'", "'[0044-03-15 00:00+00 BC,2026-07-01 12:00+02]'"],
  },
  daterange: { sql: "daterange", values: ["'[2026-01-01,2026-02-01)'", "'[2026-01-01,infinity)'"] },
  // Of its own: over a type whose text is not what JSON has.
  floatrange: { sql: "@.floatrange", values: ["'[1e-05,1e20)'", "'(,0.3]'", "'empty'"] },
  floatmultirange: { sql: "@.floatmultirange", values: ["'{[-0,1.5),(1e16,)}'", "'{}'"] },
  int8multirange: { sql: "int8multirange", values: ["'{[1,2),[9223372036854775806,)}'"] },
  nummultirange: { sql: "nummultirange", values: ["'{[1.50,2.0]}'", "'{}'"] },
  tsmultirange: { sql: "tsmultirange", values: ["'{[2026-01-01 00:00,2026-01-02 03:04:05.6)}'"] },
  datemultirange: { sql: "datemultirange", values: ["'{(,2026-01-01),[2026-02-01,infinity)}'"] },
  int4multirange: { sql: "int4multirange", values: ["'{[1,3),[5,8)}'", "'{}'"] },
  tstzmultirange: { sql: "tstzmultirange", values: ["'{[2026-01-01 00:00+00,2026-01-02 00:00+00)}'"] },
  point: { sql: "point", values: ["'(1,2.5)'", "'(1e300,-0)'", "'(NaN,Infinity)'"] },
  line: { sql: "line", values: ["'{1,2,3}'"] },
  lseg: { sql: "lseg", values: ["'[(0,0),(1,1)]'"] },
  box: { sql: "box", values: ["'((1,1),(0,0))'"] },
  path: { sql: "path", values: ["'((0,0),(1,1))'", "'[(0,0),(1,1.5)]'"] },
  polygon: { sql: "polygon", values: ["'((0,0),(1,1),(1,0))'"] },
  circle: { sql: "circle", values: ["'<(0,0),1.5>'"] },
  pg_lsn: { sql: "pg_lsn", values: ["'16/B374D848'", "'0/0'", "'FFFFFFFF/FFFFFFFF'"], isKey: true },
  xid8: { sql: "xid8", values: ["'18446744073709551615'"] },
  xid: { sql: "xid", values: ["'4294967295'"] },
  tid: { sql: "tid", values: ["'(1,2)'"] },
  txid_snapshot: { sql: "txid_snapshot", values: ["'10:20:10,14,15'"] },
  pg_snapshot: { sql: "pg_snapshot", values: ["'10:20:10,14,15'"] },
  cid: { sql: "cid", values: ["'4294967295'"] },
  aclitem: { sql: "aclitem", values: ["'=r/postgres'", "'postgres=arwd*/postgres'"] },
  refcursor: { sql: "refcursor", values: ["'a \"cursor\"'"] },
  regproc: { sql: "regproc", values: ["'now'", "0"] },
  regprocedure: { sql: "regprocedure", values: ["'lower(text)'"] },
  regoper: { sql: "regoper", values: ["'||/'", "0"] },
  regoperator: { sql: "regoperator", values: ["'+(int4,int4)'"] },
  regconfig: { sql: "regconfig", values: ["'english'"] },
  regdictionary: { sql: "regdictionary", values: ["'simple'"] },
  regnamespace: { sql: "regnamespace", values: ["'pg_catalog'"] },
  regrole: { sql: "regrole", values: ["'postgres'"] },
  regcollation: { sql: "regcollation", values: ["'\"C\"'"] },
  regclass: { sql: "regclass", values: ["'pg_class'", "0"] },
  regtype: { sql: "regtype", values: ["'int4'", "'timestamptz[]'", "'public.hstore'"] },
  oidvector: { sql: "oidvector", values: ["'1 2 3'", "''"] },
  int2vector: { sql: "int2vector", values: ["'1 2'", "''"] },
  mood: { sql: "@.mood", values: ["'sad'", "'so so'", "'happy'"], isKey: true },
  hstore: {
    sql: "public.hstore",
    values: ['\'a=>1, "b c"=>NULL, d=>"x\\"y\\\\z"\'', "''", '\'e=>"NULL", f=>""\''],
    needs: "hstore",
  },
  citext: { sql: "public.citext", values: ["'MiXed'", "'mixed'", "''"], needs: "citext" },
};

/** What a scenario makes of a type for a column. */
export type Wrap =
  | "none"
  | "array"
  | "domain"
  | "domains"
  | "domain-array"
  | "composite"
  | "composites"
  /** A composite of a domain over a composite, and of an array of them. */
  | "deep";

/** Names that have been mistaken for something else somewhere. */
export const COLUMN_NAMES: readonly string[] = ["a", "Value x", "new", "old", "bemi_row", "é", 'qu"ote', "x"];
