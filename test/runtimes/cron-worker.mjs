// For workerd, bundled: requests write with their context, and a cron brings what they wrote into the log.
import postgres from "postgres";
import { bemi } from "../../dist/src/middleware/fetch.js";
import { withBemi } from "../../dist/src/adapters/postgres.js";
import { poll } from "../../dist/src/worker/mod.js";

const results = [];

export default {
  fetch: async (request, env, ctx) => {
    const { pathname } = new URL(request.url);
    if (pathname === "/results") return Response.json(results);
    const sql = withBemi(postgres(env.DATABASE_URL, { max: 2, fetch_types: false }));
    const handler = bemi(async () => {
      await sql`insert into todos (task) values (${"Sleep"})`;
      await sql.begin(async (sql) => {
        await sql`update todos set task = 'Eat' where task = 'Sleep' and user_id is null`;
        await sql`insert into todos (task, user_id) values ('Repeat', ${request.headers.get("x-user")})`;
      });
      return new Response("written");
    }, (request) => ({ user_id: Number(request.headers.get("x-user")), endpoint: pathname }));
    try {
      return await handler(request);
    } finally {
      ctx.waitUntil(sql.end({ timeout: 1 }));
    }
  },
  scheduled: async (_controller, env) => {
    const options = { source: env.DATABASE_URL, schema: env.SCHEMA, signal: AbortSignal.timeout(20_000) };
    results.push(...await Promise.all([poll(options), poll(options)]));
  },
};
