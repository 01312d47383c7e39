import { Hono } from "hono";
import postgres from "postgres";

const sql = postgres();
const app = new Hono();
app.post("/todos", async (c) => {
  await sql`INSERT INTO todos (task) VALUES (${await c.req.text()})`;
  return c.text("created", 201);
});

console.log(Bun.serve({ port: 0, fetch: app.fetch }).port);
