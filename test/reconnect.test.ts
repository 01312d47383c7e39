import dns from "node:dns";
import { expect, test, vi } from "vitest";
import type { WorkerEvent } from "../src/worker/mod.ts";
import { openProxy, type Proxy } from "./chaos/proxy.ts";
import { onEachServer, type TestDatabase } from "./support/databases.ts";
import { BEMI, createSlot, install, runWorker, track } from "./support/installation.ts";
import { seen } from "./support/todos.ts";

const PATIENCE = { timeout: 60_000, interval: 50 };

async function todos({ db, port }: TestDatabase): Promise<void> {
  await install(db);
  await createSlot(db);
  await port.execute("create table todos (id int primary key, task text)");
  await track(db, "todos", { capture: "wal" });
}

/** A worker behind a network of its own, once it streams. */
async function streaming(proxy: Proxy, { url }: { url: string }) {
  const source = new URL(url);
  source.port = String(proxy.port);
  const events: WorkerEvent[] = [];
  const worker = runWorker({ source: source.href, mode: "stream", log: (event) => events.push(event) });
  const streams = (): number =>
    events.filter((event) => event.kind === "reading" && event.mode === "stream").length;
  const retries = () => events.flatMap((event) => event.kind === "retry" ? [event] : []);
  const untilStreaming = (times: number): Promise<void> =>
    vi.waitFor(() => expect(streams(), JSON.stringify(retries())).toBeGreaterThanOrEqual(times), PATIENCE);
  await untilStreaming(1);
  return { worker, retries, untilStreaming };
}

async function expectTasks({ port }: TestDatabase, tasks: readonly string[]): Promise<void> {
  await vi.waitFor(
    async () => expect((await seen(port)).map(({ after }) => after.task)).toEqual(tasks),
    PATIENCE,
  );
  expect(await port.query(`select from ${BEMI}.gaps`)).toEqual([]);
}

onEachServer("a worker whose server is not to be reached", (open) => {
  test("tries again less and less often, and goes on where it was", async () => {
    await using database = await open();
    await todos(database);
    const { hostname: host, port } = new URL(database.url);
    let isAway = false;
    using proxy = await openProxy(() => ({ host, port: isAway ? 1 : Number(port) }));
    const { worker, retries, untilStreaming } = await streaming(proxy, database);
    isAway = true;
    proxy.cut();
    await database.port.execute("insert into todos values (1, 'meanwhile')");
    await vi.waitFor(() => expect(retries().length).toBeGreaterThanOrEqual(5), PATIENCE);
    for (const [i, { delay, code }] of retries().entries()) {
      expect(code).toMatch(/^(CONN|E)/);
      // Twice as long each time, and not all workers at once.
      const longest = Math.min(30_000, 100 * 2 ** (i + 1));
      expect(delay).toBeGreaterThanOrEqual(Math.floor(longest / 2));
      expect(delay).toBeLessThanOrEqual(longest);
    }
    isAway = false;
    await untilStreaming(2);
    await expectTasks(database, ["meanwhile"]);
    // What came through was no failure: the next time begins with a short pause again.
    const before = retries().length;
    await database.port.execute("insert into todos values (2, 'afterwards')");
    await expectTasks(database, ["meanwhile", "afterwards"]);
    proxy.cut();
    await untilStreaming(3);
    expect(retries()[before]?.delay).toBeLessThanOrEqual(200);
    await worker.stop();
  }, 180_000);

  test("tries again where its name cannot be looked up for a while", async () => {
    await using database = await open();
    await todos(database);
    await database.port.execute("insert into todos values (1, 'meanwhile')");
    const lookup = vi.spyOn(dns, "lookup").mockImplementationOnce(
      ((_name, _options, done) =>
        void setImmediate(
          done as (error: Error) => void,
          Object.assign(new Error(), { code: "EAI_AGAIN" }),
        )) as typeof dns.lookup,
    );
    const source = new URL(database.url);
    source.hostname = "localhost";
    const events: WorkerEvent[] = [];
    await runWorker({ source: source.href, once: true, log: (event) => events.push(event) }).finished;
    lookup.mockRestore();
    expect(events).toContainEqual(expect.objectContaining({ kind: "retry", code: "EAI_AGAIN" }));
    await expectTasks(database, ["meanwhile"]);
  });

  test(
    "notices a network that has gone silent by its own timer, and reads over another connection",
    async () => {
      await using database = await open();
      const { port, url } = database;
      await todos(database);
      await port.execute(`alter database "${new URL(url).pathname.slice(1)}" set wal_sender_timeout = '3s'`);
      const { hostname: host, port: number } = new URL(url);
      using proxy = await openProxy(() => ({ host, port: Number(number) }));
      const { worker, retries, untilStreaming } = await streaming(proxy, database);
      await port.execute("insert into todos values (1, 'before')");
      await expectTasks(database, ["before"]);
      proxy.isSilent = true;
      await port.execute("insert into todos values (2, 'into silence')");
      await vi.waitFor(() => expect(retries()).toHaveLength(1), PATIENCE);
      expect(retries()[0]?.code).toMatch(/^(?:ETIMEDOUT|CONNECTION_\w+)$/);
      proxy.isSilent = false;
      await untilStreaming(2);
      await expectTasks(database, ["before", "into silence"]);
      await worker.stop();
    },
    180_000,
  );
});
