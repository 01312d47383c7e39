import { serve } from "@hono/node-server";
import { Hono } from "hono";
import postgres from "postgres";

const sql = postgres();
const app = new Hono();
app.post("/todos", async (c) => {
  await sql`INSERT INTO todos (task) VALUES (${await c.req.text()})`;
  return c.text("created", 201);
});

serve({ fetch: app.fetch, port: 0 }, ({ port }) => console.log(port));
