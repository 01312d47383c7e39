import { bemi } from "@bemi/core/hono";
import { withBemi } from "@bemi/core/postgres";
import { Hono } from "hono";
import postgres from "postgres";

const app = new Hono<{ Bindings: { DATABASE_URL: string } }>();
app.use(bemi((c) => ({
  user_id: c.req.header("x-user-id"),
})));
app.post("/todos", async (c) => {
  const sql = withBemi(postgres(c.env.DATABASE_URL));
  await sql`INSERT INTO todos (task) VALUES (${await c.req.text()})`;
  c.executionCtx.waitUntil(sql.end());
  return c.text("created", 201);
});

export default app;
