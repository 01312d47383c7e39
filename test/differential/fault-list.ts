/** A deliberate fault: what stands in a file, and what is put in its place. */
export interface Fault {
  readonly what: string;
  readonly file: string;
  readonly from: string;
  readonly to: string;
}

export const FAULTS: readonly Fault[] = [
  {
    what: "converter: a time zone's offset stays as PostgreSQL prints it",
    file: "src/worker/values.ts",
    from: "T${text.slice(11)}:00",
    to: "T${text.slice(11)}",
  },
  {
    what: "converter: a negative zero keeps its sign, which jsonb does not",
    file: "src/worker/values.ts",
    from: 'return text === "-0" ? "0" : text;',
    to: "return text;",
  },
  {
    what: "converter: an array's own bounds are read as elements",
    file: "src/worker/values.ts",
    from: 'text.startsWith("[") ? text.indexOf("=") + 1 : 0',
    to: "0",
  },
  {
    what: "stitcher: a row takes any message of its table",
    file: "src/worker/stitch.ts",
    from: ".filter((known) => known.operation !== operation)",
    to: ".filter(() => false)",
  },
  {
    what: "stitcher: a partition's move stays a DELETE and an INSERT",
    file: "src/worker/stitch.ts",
    from: "isMoved ? waiting?.pop() : undefined",
    to: "undefined",
  },
  {
    what: "stitcher: a table goes by the name that PostgreSQL sent",
    file: "src/worker/table.ts",
    from: "this.facts?.isNoted ? this.facts.name : this.relation.name",
    to: "this.relation.name",
  },
  {
    what: "triggers: the context is the one at the end of the statement",
    file: "sql/000005_trigger_capture.sql",
    from: "\"bemi\".begun_context(tg_relid, case when v_is_move then 'UPDATE' else tg_op end)",
    to: "current_setting('bemi.context', true)",
  },
  {
    what: "triggers: the session's DateStyle is what dates are written in",
    file: "sql/000005_trigger_capture.sql",
    from: "set timezone = 'UTC' set datestyle = 'ISO, MDY'",
    to: "",
  },
  {
    what: "writer: a key's former value is lost",
    file: "src/worker/encode.ts",
    from: 'change.formerKey === null ? "\\\\N" : escape(change.formerKey)',
    to: 'change.formerKey === null ? "\\\\N" : "\\\\N"',
  },
  {
    what: "writer: a context is that of the statement before",
    file: "src/worker/encode.ts",
    from: "if (context.text !== text) context",
    to: 'if (context.text === "") context',
  },
];
