import { bemi } from "@bemi/core/hono";
import { withBemi } from "@bemi/core/postgres";
import { Hono } from "hono";
import postgres from "postgres";

const sql = withBemi(postgres());
const app = new Hono();
app.use(bemi((c) => ({
  user_id: c.req.header("x-user-id"),
})));
app.post("/todos", async (c) => {
  await sql`INSERT INTO todos (task) VALUES (${await c.req.text()})`;
  return c.text("created", 201);
});

Deno.serve({ port: 0, onListen: ({ port }) => console.log(port) }, app.fetch);
