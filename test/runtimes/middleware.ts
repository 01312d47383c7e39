import { currentContext } from "@bemi/core";
import { bemi as bemiForBun } from "@bemi/core/bun";
import { bemi as bemiForFetch } from "@bemi/core/fetch";
import { changes } from "@bemi/core/history";
import { bemi as bemiForHono } from "@bemi/core/hono";
import { withBemi } from "@bemi/core/postgres";
import { Hono } from "hono";
import { deepStrictEqual } from "node:assert/strict";
import type { AddTest, Runtime } from "./add-tests.ts";
import { connect } from "./capture.ts";

type Answer = (request: Request) => Response | Promise<Response>;

export function middlewareTests(test: AddTest, { url, schema, serve }: Runtime): void {
  const context = (request: Request) => ({
    user_id: Number(request.headers.get("x-user")),
    endpoint: new URL(request.url).pathname,
  });
  const served: { readonly [name: string]: (handle: () => Promise<Response>) => Answer } = {
    Hono: (handle) => {
      const app = new Hono();
      app.use(bemiForHono((c) => context(c.req.raw)));
      app.all("*", () => handle());
      return (request) => app.fetch(request);
    },
    fetch: (handle) => bemiForFetch(handle, context),
    "Bun's fetch": (handle) => bemiForBun(handle, context) as unknown as Answer,
  };
  for (const [name, make] of Object.entries(served)) {
    test(`overlapping requests to ${name} write with their own contexts`, async () => {
      await using bare = connect(url);
      const db = withBemi(bare.sql);
      const [last] = await changes(bare.sql, { schema, limit: 1 });
      const answer = make(async () => {
        await new Promise((done) => setTimeout(done, Math.random() * 5));
        await db`insert into todos (task) values (${`of ${currentContext()?.user_id}`})`;
        return Response.json(currentContext());
      });
      await using serving = await serve(answer);
      const users = [1, 2, 3, 4, 5, 6];
      const asked = users.map((user) => serving.ask({ user, path: `/todos/${user}` }));
      const contexts = (await Promise.all(asked)).map((text) => JSON.parse(text));
      deepStrictEqual(contexts, users.map((user) => ({ user_id: user, endpoint: `/todos/${user}` })));
      const log = await changes(bare.sql, { schema, page: { after: last?.cursor } });
      const told = log.map(({ after, context }) => `${after.task} ${context.user_id} ${context.endpoint}`);
      deepStrictEqual(told.sort(), users.map((user) => `of ${user} ${user} /todos/${user}`));
    });
  }
}
