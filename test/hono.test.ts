import { Hono } from "hono";
import { stream } from "hono/streaming";
import { expect, expectTypeOf, test } from "vitest";
import { mergeContext, onWarning } from "../mod.ts";
import { withBemi } from "../src/adapters/pglite.ts";
import { install, track } from "./support/installation.ts";
import { bemi } from "../src/middleware/hono.ts";
import { onPglite } from "./support/databases.ts";
import { seen, TODOS } from "./support/todos.ts";

type Env = { Variables: { user: { id: number } } };

onPglite("the Hono middleware", (open) => {
  test("each write carries its own request's context, in awaited, concurrent and streamed work", async () => {
    await using database = await open();
    await install(database.db);
    await database.port.execute(TODOS);
    await track(database.db, "todos");
    const db = withBemi(database.db);
    const add = (task: string): Promise<unknown> => db.query("insert into todos (task) values ($1)", [task]);

    const app = new Hono<Env>();
    app.use(bemi<Env>((c) => {
      expectTypeOf(c.get("user")).toEqualTypeOf<{ id: number }>();
      return { user_id: c.get("user").id, method: c.req.method, endpoint: c.req.path };
    }));
    // Authentication comes after the middleware: the context is asked for at the first write.
    app.use(async (c, next) => {
      await new Promise((done) => setTimeout(done, Math.random() * 10));
      c.set("user", { id: Number(c.req.header("x-user")) });
      await next();
    });
    app.post("/one", async (c) => (await add(c.req.header("x-user") ?? ""), c.text("ok")));
    app.post("/many", async (c) => {
      await Promise.all([1, 2, 3].map(() => add(c.req.header("x-user") ?? "")));
      return c.text("ok");
    });
    app.post("/stream", (c) =>
      stream(c, async (body) => {
        await body.write("a");
        await new Promise((done) => setTimeout(done, 5));
        await add(c.req.header("x-user") ?? "");
        await body.write("b");
      }));
    app.post("/merge", async (c) => {
      mergeContext({ step: "merged" });
      await add(c.req.header("x-user") ?? "");
      return c.text("ok");
    });
    app.post("/throws", async (c) => {
      await add(c.req.header("x-user") ?? "");
      throw new Error("handler");
    });
    app.onError((_error, c) => c.text("failed", 500));

    const paths = ["/one", "/many", "/stream", "/merge", "/throws"];
    await Promise.all(Array.from({ length: 50 }, async (_, user) => {
      const response = await app.request(paths[user % paths.length] ?? "", {
        method: "POST",
        headers: { "x-user": String(user), "x-request-id": `r-${user}` },
      });
      await response.text();
    }));

    const changes = await seen(database.port);
    expect(changes).toHaveLength(10 * (1 + 3 + 1 + 1 + 1));
    for (const change of changes) {
      const user = Number(change.after.task);
      expect(change.context).toMatchObject({
        user_id: user,
        method: "POST",
        endpoint: paths[user % paths.length],
        request_id: `r-${user}`,
      });
      expect(change.context.step).toBe(user % 5 === 3 ? "merged" : undefined);
    }
    await add("outside");
    expect((await seen(database.port)).at(-1)?.context.user_id).toBeUndefined();
  });

  test("traceparent and request ids are taken when they are valid, and a function that throws is only reported", async () => {
    await using database = await open();
    await install(database.db);
    await database.port.execute(TODOS);
    await track(database.db, "todos");
    const db = withBemi(database.db);
    const warnings: string[] = [];
    onWarning((message) => warnings.push(message));
    const app = new Hono();
    app.use(bemi((c) => {
      if (c.req.query("throw")) throw new Error("secret");
      return {};
    }));
    app.post("/", async (c) => {
      await db.query("insert into todos (task) values ('x')");
      return c.text("ok");
    });
    const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    await app.request("/", { method: "POST", headers: { traceparent, "x-request-id": "abc-1" } });
    await app.request("/", { method: "POST", headers: { traceparent: "00-0-0-1", "x-request-id": "a b" } });
    expect((await app.request("/?throw=1", { method: "POST" })).status).toBe(200);
    const contexts = (await seen(database.port)).map(({ context: { db: _, SQL: __, ...own } }) => own);
    expect(contexts).toEqual([{ traceparent, request_id: "abc-1" }, {}, {}]);
    expect(warnings).toHaveLength(1);
    onWarning();
  });
});
