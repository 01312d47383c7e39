import { expect, test } from "vitest";
import { currentContext, onWarning } from "../mod.ts";
import { bemi } from "../src/middleware/fetch.ts";

test("the handler runs in the context of its request, with whatever else its host passes along", async () => {
  const handler = bemi(
    async (request: Request, env: { region: string }) => {
      await new Promise((done) => setTimeout(done, Math.random() * 5));
      return Response.json({ ...currentContext(), seen: env.region, url: request.url });
    },
    (request, env) => ({ method: request.method, region: env.region }),
  );
  const answers = await Promise.all(Array.from({ length: 20 }, async (_, i) => {
    const response = await handler(
      new Request(`http://localhost/${i}`, {
        method: i % 2 ? "POST" : "PUT",
        headers: { "x-request-id": `r${i}` },
      }),
      { region: `region-${i}` },
    );
    return await response.json() as unknown;
  }));
  answers.forEach((answer, i) =>
    expect(answer).toEqual({
      method: i % 2 ? "POST" : "PUT",
      region: `region-${i}`,
      seen: `region-${i}`,
      request_id: `r${i}`,
      url: `http://localhost/${i}`,
    })
  );
});

test("a handler that throws still throws", async () => {
  const handler = bemi(() => Promise.reject(new Error("handler")), () => ({}));
  await expect(handler(new Request("http://localhost/"))).rejects.toThrow("handler");
});

test("a function whose context is no object, or comes later, is reported, and the request goes on", async () => {
  const warnings: string[] = [];
  onWarning((message) => warnings.push(message));
  for (const wrong of [() => Promise.resolve({ user_id: 1 }), () => "text", () => undefined]) {
    const handler = bemi(() => Response.json(currentContext()), wrong as never);
    const response = await handler(new Request("http://localhost/", { headers: { "x-request-id": "r1" } }));
    expect(await response.json()).toEqual({ request_id: "r1" });
  }
  onWarning();
  expect(warnings).toEqual([
    expect.stringMatching(/must not be asynchronous/),
    expect.stringMatching(/must be an object, not string/),
    expect.stringMatching(/must be an object, not undefined/),
  ]);
});
