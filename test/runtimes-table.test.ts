import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { suiteNames } from "./support/suite-names.ts";

/** Tests of the shared suite, by a part of their names; or texts that occur in a file, for the columns that it is about. */
interface Elsewhere {
  readonly file: string;
  readonly texts: readonly string[];
  readonly columns: readonly string[];
}

/** What stands behind a row: all of it. */
const BEHIND: Readonly<Record<string, readonly string[] | Elsewhere>> = {
  "postgres.js": ["requests through postgres.js,"],
  pg: ["requests through pg,"],
  "pg's cursors, streams, callbacks": ["pg's cursors, streams and callbacks"],
  "drizzle on pg, on postgres.js": [
    "requests through drizzle on pg,",
    "requests through drizzle on postgres.js,",
  ],
  "kysely on pg": ["requests through kysely on pg,"],
  "kysely itself, by comments": ["requests through kysely itself,"],
  "PGlite; drizzle, kysely on it": [
    "requests through PGlite,",
    "requests through drizzle on PGlite,",
    "requests through kysely on PGlite,",
  ],
  "Bun's SQL, drizzle on it": {
    file: "bun-sql",
    texts: ["300 overlapping requests on 4 connections", '["drizzle", "drizzleWrapped"]'],
    columns: ["Bun"],
  },
  "TypeORM on pg": { file: "typeorm", texts: ["expectIsolation"], columns: ["Node 20"] },
  "MikroORM 6 on pg": { file: "mikro-orm", texts: ['"6": PROCESS_RUNTIMES[0]'], columns: ["Node 20"] },
  "MikroORM 7 on pg": { file: "mikro-orm", texts: ['"7": PROCESS_RUNTIMES[1]'], columns: ["Node 24"] },
  "Prisma's driver adapter on pg": { file: "prisma", texts: ["prisma/adapter.ts"], columns: ["Node 20"] },
  "Neon over HTTP and WebSockets": {
    file: "neon-client",
    texts: ["requests over HTTP never mix", "requests over WebSockets never mix", "expectIsolation"],
    columns: ["Node 20"],
  },
  "ts-postgres, by comments": { file: "comment-client", texts: ["expectIsolation"], columns: ["Node 20"] },
  "Hono, `fetch`": ["requests to Hono", "requests to fetch"],
  "Express 5": ["requests to Express"],
  "Express 4, tRPC": { file: "express", texts: ["express-4", "@trpc/server"], columns: ["Node 20"] },
  "install, reads, revert": ["it installs, tracks", "the past, and takes a change back"],
  "the worker polls": ["a bounded poll"],
  "the worker streams": ["a worker streams"],
};

test("the README's table of runtimes and clients ticks what is tested, and nothing else", () => {
  const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8");
  const [, section = ""] = /^## Runtimes x clients\n([^]*?)^## /m.exec(readme) ?? [];
  const [head = [], , ...rows] = section.split("\n").filter((line) => line.startsWith("|"))
    .map((line) => line.split("|").slice(1, -1).map((cell) => cell.trim()));
  const columns = head.slice(1);
  expect(columns).toEqual(["Node 20", "Node 24", "Deno", "Bun", "Workers"]);
  expect(rows.map(([label]) => label)).toEqual(Object.keys(BEHIND));
  for (const [label = "", ...ticks] of rows) {
    const behind = BEHIND[label];
    if (behind === undefined) throw new Error(`Nothing stands behind ${label}`);
    const tested = columns.filter((column) =>
      "file" in behind
        ? behind.columns.includes(column)
        : behind.every((part) => suiteNames(column).some((name) => name.includes(part)))
    );
    expect([label, columns.filter((_, n) => ticks[n] === "✓")]).toEqual([label, tested]);
    if (!("file" in behind)) continue;
    const file = readFileSync(new URL(`./${behind.file}.test.ts`, import.meta.url), "utf8");
    for (const text of behind.texts) expect(file).toContain(text);
  }
});
