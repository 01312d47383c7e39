// For Cloudflare's workerd: a Worker that answers with the suite's results.
import { run } from "./run.ts";

export default {
  fetch: async (
    _request: Request,
    env: { readonly URL: string; readonly SCHEMA: string },
  ): Promise<Response> =>
    Response.json(
      await run({
        url: env.URL,
        schema: env.SCHEMA,
        // A Worker cannot ask itself; the todo application's requests come from outside.
        serve: (answer) =>
          Promise.resolve({
            ask: async ({ user, path }) => {
              const headers = { "x-user": String(user) };
              return await (await answer(new Request(`http://localhost${path}`, { headers }))).text();
            },
            [Symbol.asyncDispose]: async () => {},
          }),
        streams: false,
      }),
    ),
};
