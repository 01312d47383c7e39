import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { suiteNames } from "./support/suite-names.ts";

/**
 * What stands behind a row: a test of the shared suite, by a part of its name, or a file for the columns that it is
 * about, in which that text occurs.
 */
const BEHIND: Readonly<Record<string, string | { file: string; text: string; columns: readonly string[] }>> =
  {
    "postgres.js": "requests through postgres.js,",
    pg: "requests through pg,",
    "pg's cursors, streams, callbacks": "pg's cursors, streams and callbacks",
    "drizzle on pg, on postgres.js": "requests through drizzle on postgres.js,",
    "kysely on pg": "requests through kysely on pg,",
    "kysely itself, by comments": "requests through kysely itself,",
    "PGlite; drizzle, kysely on it": "requests through kysely on PGlite,",
    "Bun's SQL, drizzle on it": { file: "bun-sql", text: "300 overlapping requests", columns: ["Bun"] },
    "TypeORM on pg": { file: "typeorm", text: "expectIsolation", columns: ["Node 20"] },
    "MikroORM 6 on pg": { file: "mikro-orm", text: '"6": PROCESS_RUNTIMES[0]', columns: ["Node 20"] },
    "MikroORM 7 on pg": { file: "mikro-orm", text: '"7": PROCESS_RUNTIMES[1]', columns: ["Node 24"] },
    "Prisma's driver adapter on pg": { file: "prisma", text: "prisma/adapter.ts", columns: ["Node 20"] },
    "Neon over HTTP and WebSockets": { file: "neon-client", text: "expectIsolation", columns: ["Node 20"] },
    "ts-postgres, by comments": { file: "comment-client", text: "expectIsolation", columns: ["Node 20"] },
    "Hono, `fetch`": "requests to fetch",
    "Express 5": "requests to Express",
    "Express 4, tRPC": { file: "express", text: "express-4", columns: ["Node 20"] },
    "install, reads, revert": "takes a change back",
    "the worker polls": "a bounded poll",
    "the worker streams": "a worker streams",
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
      typeof behind === "string"
        ? suiteNames(column).some((name) => name.includes(behind))
        : behind.columns.includes(column)
    );
    expect([label, columns.filter((_, n) => ticks[n] === "✓")]).toEqual([label, tested]);
    if (typeof behind === "string") continue;
    expect(readFileSync(new URL(`./${behind.file}.test.ts`, import.meta.url), "utf8")).toContain(behind.text);
  }
});
