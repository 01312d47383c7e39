import fc from "fast-check";
import { afterEach, expect, test } from "vitest";
import { currentContext, mergeContext, onWarning, withContext } from "../mod.ts";
import { withLazyContext } from "../src/context/scope.ts";
import { MAX_CONTEXT_BYTES } from "../src/context/context-text.ts";
import { statementContext } from "../src/context/statement-context.ts";
import { contextLiteralSql } from "../src/context/context-sql.ts";
import { onEachDatabase } from "./support/databases.ts";

const warnings: string[] = [];
onWarning((message) => warnings.push(message));
afterEach(() => void warnings.splice(0));

const pause = (): Promise<void> => new Promise((done) => setTimeout(done, Math.random() * 5));

test("a context is in force within, and nothing is outside", async () => {
  expect(currentContext()).toBeUndefined();
  expect(statementContext()).toBeUndefined();
  const result = await withContext({ user_id: 1 }, async () => {
    await pause();
    expect(currentContext()).toEqual({ user_id: 1 });
    return "done";
  });
  expect(result).toBe("done");
  expect(currentContext()).toBeUndefined();
});

test("nested contexts merge or replace, and are restored, also after a throw", async () => {
  await withContext({ user_id: 1, path: "/" }, async () => {
    await withContext(
      { path: "/todo" },
      () => expect(currentContext()).toEqual({ user_id: 1, path: "/todo" }),
    );
    await withContext({ job: "x" }, () => expect(currentContext()).toEqual({ job: "x" }), {
      mode: "replace",
    });
    await expect(withContext({ user_id: 2 }, () => Promise.reject(new Error("no")))).rejects.toThrow("no");
    expect(currentContext()).toEqual({ user_id: 1, path: "/" });
  });
});

test("mergeContext changes the innermost scope for all that follows in it, and no other", async () => {
  mergeContext({ lost: true });
  await withContext({ user_id: 1 }, async () => {
    await withContext({}, async () => {
      mergeContext({ step: 1 });
      expect(statementContext()).toBe('{"user_id":1,"step":1}');
      await pause();
      mergeContext({ step: 2 });
      expect(statementContext()).toBe('{"user_id":1,"step":2}');
    });
    expect(statementContext()).toBe('{"user_id":1}');
    mergeContext({ late: true });
    await withContext({}, () => expect(statementContext()).toBe('{"user_id":1,"late":true}'));
  });
});

test("an inner scope sees what is merged into the outer one afterwards", async () => {
  await withContext({ a: 1 }, async () => {
    let resume = (): void => {};
    const gate = new Promise<void>((done) => resume = done);
    const inner = withContext({ b: 2 }, async () => {
      expect(statementContext()).toBe('{"a":1,"b":2}');
      await gate;
      return statementContext();
    });
    mergeContext({ a: 3 });
    resume();
    expect(await inner).toBe('{"a":3,"b":2}');
  });
});

test("a lazy query that is returned, not awaited, runs inside", async () => {
  let seen: unknown;
  const query = { then: (resolve: (value: string) => void) => (seen = currentContext(), resolve("rows")) };
  expect(await withContext({ user_id: 1 }, () => query)).toBe("rows");
  expect(seen).toEqual({ user_id: 1 });
});

test("overlapping requests never see each other's context", async () => {
  await Promise.all(Array.from({ length: 300 }, (_, user_id) =>
    withContext({ user_id }, async () => {
      for (let i = 0; i < 5; i++) {
        await pause();
        mergeContext({ i });
        expect(currentContext()).toEqual({ user_id, i });
      }
    })));
});

test("a provider is asked once, at the first look, and one that throws is reported while the request goes on", async () => {
  let calls = 0;
  await withLazyContext(() => ({ calls: ++calls }), async () => {
    expect(calls).toBe(0);
    expect(statementContext()).toBe('{"calls":1}');
    await pause();
    expect(statementContext()).toBe('{"calls":1}');
  });
  const result = await withLazyContext(() => {
    throw new Error("secret");
  }, () => statementContext());
  expect(result).toBe("{}");
  expect(warnings).toEqual([expect.stringMatching(/threw/)]);
  expect(warnings[0]).not.toMatch(/secret/);
});

test("a provider that itself writes leaves its context to all that follows", async () => {
  const texts = await withLazyContext(() => {
    const early = statementContext();
    return { early };
  }, () => [statementContext(), statementContext()]);
  expect(texts).toEqual(['{"early":"{}"}', '{"early":"{}"}']);
});

test("the console is told an error's name, code and place, and not its message", async () => {
  const printed: string[] = [];
  const { warn } = console;
  console.warn = (text: string) => printed.push(text);
  onWarning();
  try {
    const error = Object.assign(new TypeError("secret\n    at secret (/secret.ts:1:1)"), {
      code: "E_SESSION",
    });
    await withLazyContext(() => {
      throw error;
    }, () => statementContext());
  } finally {
    console.warn = warn;
    onWarning((message) => warnings.push(message));
  }
  expect(printed).toHaveLength(1);
  expect(printed[0]).toMatch(
    /^bemi: the context function threw: .*\(TypeError E_SESSION\)\n +at .*context\.test\.ts:\d+:\d+/,
  );
  expect(printed[0]).not.toContain("secret");
});

test("a context may be of an interface's type, and no promise", async () => {
  interface Visit {
    readonly user_id: number;
  }
  const visit: Visit = { user_id: 1 };
  await withContext(visit, () => {
    mergeContext({ path: "/" } satisfies { path: string });
    expect(currentContext()).toEqual({ user_id: 1, path: "/" });
  });
  // @ts-expect-error a context that comes later comes too late
  await withContext(Promise.resolve(visit), () => expect(currentContext()).toEqual({}));
});

test("what is no object, or a promise, is reported and ignored", async () => {
  for (const wrong of [null, 7, "text", [1], Promise.resolve({}), Promise.reject(new Error("late"))]) {
    expect(await withContext(wrong as never, () => statementContext())).toBe("{}");
  }
  expect(warnings).toHaveLength(6);
});

test("values that JSON cannot hold are left out, with a warning where one fails", async () => {
  const cycle: Record<string, unknown> = {};
  cycle.self = cycle;
  const context = {
    ok: 1,
    big: 12345678901234567890n,
    nothing: undefined,
    cycle,
    nan: NaN,
    fn: () => 1,
    date: new Date(0),
    broken: {
      toJSON: () => {
        throw new Error("no");
      },
    },
    get thrower(): number {
      throw new Error("no");
    },
  };
  expect(JSON.parse(await withContext(context, () => statementContext()) ?? "")).toEqual({
    ok: 1,
    big: "12345678901234567890",
    nan: null,
    date: "1970-01-01T00:00:00.000Z",
  });
  expect(warnings).toHaveLength(3);
});

test("a getter that throws is left out of nested and of merged contexts too", async () => {
  const broken = {
    step: 2,
    get thrower(): number {
      throw new Error("no");
    },
  };
  const texts = await withContext({ user_id: 1, step: 1 }, () => {
    const nested = withContext(broken, () => statementContext());
    mergeContext(broken);
    return Promise.all([nested, statementContext(), withContext({ step: 3 }, () => statementContext())]);
  });
  expect(texts).toEqual(['{"user_id":1,"step":2}', '{"user_id":1,"step":2}', '{"user_id":1,"step":3}']);
  expect(warnings.length).toBeGreaterThan(0);
});

test("a context past the limit loses its largest keys, and says so", async () => {
  const text = await withContext(
    { user_id: 1, page: "x".repeat(1e6), path: "/todo", other: "y".repeat(MAX_CONTEXT_BYTES - 2000) },
    () => statementContext(),
  ) ?? "";
  expect(JSON.parse(text)).toMatchObject({ user_id: 1, path: "/todo", bemi_dropped: ["page"] });
  expect(text.length).toBeLessThan(MAX_CONTEXT_BYTES);
  expect(warnings).toEqual([expect.stringMatching(/exceeds/)]);
});

onEachDatabase("hostile context values", (open) => {
  test("arrive as they are, by parameter and as the hex literal, whatever they hold", async () => {
    await using database = await open();
    const hostile = fc.oneof(
      fc.constantFrom(
        "'",
        "''",
        "\\'",
        "*/",
        "/*",
        "--",
        "$$",
        "\u0000",
        "\ud800",
        "\udfff😀",
        "😀",
        "\u2028",
        "\\u0000",
        "\\\\u0000",
        "%s",
        "${x}",
        "'; drop table todos; --",
      ),
      fc.string({ unit: "binary" }),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.dictionary(hostile, fc.oneof(hostile, fc.jsonValue() as fc.Arbitrary<unknown>)),
        async (context) => {
          const text = await withContext(context, () => statementContext()) ?? "";
          const row = await database.port.transaction(async (tx) => {
            await tx.execute(contextLiteralSql(text));
            const [read] = await tx.query<{ text: string; kind: string }>(
              "select current_setting('bemi.context') as text, jsonb_typeof(current_setting('bemi.context')::jsonb) as kind",
            );
            return read;
          });
          expect(row).toEqual({ text, kind: "object" });
          const safe = JSON.parse(
            JSON.stringify(context).replace(
              /(?<!\\)((?:\\\\)*)\\u(?:0000|d[89a-f][0-9a-f]{2})/g,
              "$1\\ufffd",
            ),
          ) as object;
          expect(JSON.parse(text)).toEqual(safe);
        },
      ),
      { numRuns: 150 },
    );
  });
});
