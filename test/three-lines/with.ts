import { bemi } from "@bemi/core/hono";
import { withBemi } from "@bemi/core/postgres";
import { Hono } from "hono";
import postgres from "postgres";

export function todoApp(url: string): { app: Hono; sql: postgres.Sql } {
  const sql = withBemi(postgres(url, { max: 4 }));
  const app = new Hono();
  app.use(bemi((c) => ({ user_id: c.req.header("x-user-id"), endpoint: c.req.path, method: c.req.method })));
  app.post("/todos", async (c) => {
    const { task } = await c.req.json<{ task: string }>();
    const [todo] = await sql`INSERT INTO todos (task) VALUES (${task}) RETURNING id`;
    return c.json(todo, 201);
  });
  app.put("/todos/:id", async (c) => {
    await sql.begin(async (sql) => {
      await sql`UPDATE todos SET is_completed = true WHERE id = ${c.req.param("id")}`;
    });
    return c.body(null, 204);
  });
  app.get("/todos", async (c) => c.json(await sql`SELECT task, is_completed FROM todos ORDER BY id`));
  return { app, sql };
}
