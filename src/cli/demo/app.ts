import { Hono } from "hono";
import { bemi } from "../../middleware/hono.ts";

/** What of a PGlite the demo's application uses. */
export interface TodoDatabase {
  query(sql: string, parameters?: unknown[]): Promise<{ rows: unknown[] }>;
}

export interface TodoEnv {
  readonly Variables: { user: { id: number } };
}

/** A todo application as anybody would write it: Bemi is the one `app.use`. */
export function todoApp(db: TodoDatabase): Hono<TodoEnv> {
  const app = new Hono<TodoEnv>();
  app.use(bemi<TodoEnv>((c) => ({ user_id: c.get("user").id, endpoint: c.req.path, method: c.req.method })));
  app.use(async (c, next) => {
    c.set("user", { id: Number(c.req.header("x-user-id")) });
    await next();
  });
  app.post("/todo", async (c) => {
    const { task } = await c.req.json<{ task: string }>();
    await db.query("INSERT INTO todo (task) VALUES ($1)", [task]);
    return c.body(null, 201);
  });
  app.put("/todo/complete", async (c) => {
    await db.query("UPDATE todo SET is_completed = true WHERE id = $1", [c.req.query("id")]);
    return c.body(null, 204);
  });
  app.delete("/todo/:id", async (c) => {
    await db.query("DELETE FROM todo WHERE id = $1", [c.req.param("id")]);
    return c.body(null, 204);
  });
  return app;
}
