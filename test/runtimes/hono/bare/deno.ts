import { Hono } from "hono";
import postgres from "postgres";

const sql = postgres();
const app = new Hono();
app.post("/todos", async (c) => {
  await sql`INSERT INTO todos (task) VALUES (${await c.req.text()})`;
  return c.text("created", 201);
});

Deno.serve({ port: 0, onListen: ({ port }) => console.log(port) }, app.fetch);
