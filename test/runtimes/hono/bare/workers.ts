import { Hono } from "hono";
import postgres from "postgres";

const app = new Hono<{ Bindings: { DATABASE_URL: string } }>();
app.post("/todos", async (c) => {
  const sql = postgres(c.env.DATABASE_URL);
  await sql`INSERT INTO todos (task) VALUES (${await c.req.text()})`;
  c.executionCtx.waitUntil(sql.end());
  return c.text("created", 201);
});

export default app;
