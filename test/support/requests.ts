/** What requests do, in the words of one client. */
export interface Writer {
  insert(task: string): Promise<unknown>;
  complete(task: string): Promise<unknown>;
}

export interface RequestClient extends Writer {
  /** An insert that the server refuses. */
  refused(task: string): Promise<unknown>;
  transaction(fn: (tx: Writer) => Promise<void>): Promise<unknown>;
}

interface Connection {
  query(text: string, values?: string[]): Promise<unknown>;
}

/** What requests do through a pool like pg's, transactions on a connection of its own. */
export function overPool(
  pool: Connection & { connect(): Promise<Connection & { release(): void }> },
): RequestClient {
  const writer = (on: Connection): Writer => ({
    insert: (task) => on.query("insert into todos (task) values ($1)", [task]),
    complete: (task) => on.query("update todos set is_completed = true where task = $1", [task]),
  });
  return {
    ...writer(pool),
    refused: (task) => pool.query("insert into todos (task, nothing) values ($1, 1)", [task]),
    transaction: async (fn) => {
      const connection = await pool.connect();
      try {
        await connection.query("begin");
        await fn(writer(connection));
        await connection.query("commit");
      } catch (error) {
        await connection.query("rollback");
        throw error;
      } finally {
        connection.release();
      }
    },
  };
}

type WithContext = (context: { user_id: number }, fn: () => Promise<unknown>) => Promise<unknown>;

/** What 300 requests end as, and 8 writes that belong to none. */
export const OUTCOME = "150 fulfilled, 150 rejected";

const pause = (): Promise<void> => new Promise((done) => setTimeout(done, Math.random() * 5));

/** 300 overlapping requests, half of them failing. Needs nothing of Node's: any runtime can run it. */
export async function overlappingRequests(client: RequestClient, withContext: WithContext): Promise<string> {
  const results = await Promise.allSettled(
    Array.from({ length: 300 }, (_, user) =>
      withContext({ user_id: user }, async () => {
        const task = `t${user}`;
        await pause();
        switch (user % 4) {
          case 0:
            return await client.insert(task);
          case 1:
            return await client.transaction(async (tx) => {
              await tx.insert(task);
              await pause();
              await tx.complete(task);
            });
          case 2:
            return await client.refused(task);
          default:
            return await client.transaction(async (tx) => {
              await tx.insert(task);
              await pause();
              throw new Error("changed my mind");
            });
        }
      })),
  );
  await Promise.all(Array.from({ length: 8 }, () => client.insert("nobody")));
  const wrong = results.find((result, user) => (result.status === "fulfilled") !== (user % 4 < 2));
  if (wrong) throw wrong.status === "rejected" ? wrong.reason : new Error("What should fail did not");
  const failed = results.filter((result) => result.status === "rejected").length;
  return `${results.length - failed} fulfilled, ${failed} rejected`;
}

/** `operation task user` of what they leave in the log, sorted. */
export function expectedChanges(): string[] {
  const expected = Array.from({ length: 300 }, (_, user) => {
    if (user % 4 === 0) return [`CREATE t${user} ${user}`];
    return user % 4 === 1 ? [`CREATE t${user} ${user}`, `UPDATE t${user} ${user}`] : [];
  }).flat();
  return [...expected, ...Array.from({ length: 8 }, () => "CREATE nobody -")].sort();
}
