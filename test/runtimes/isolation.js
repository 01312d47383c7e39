// Imports the built core, and isolates two concurrent contexts: the smallest proof that a runtime can carry it.
import { currentContext, mergeContext, withContext } from "../../dist/mod.js";

const pause = () => new Promise((done) => setTimeout(done, 5));

export async function isolation() {
  const seen = await Promise.all([1, 2].map((user) =>
    withContext({ user }, async () => {
      await pause();
      mergeContext({ step: user * 10 });
      await pause();
      return currentContext();
    })
  ));
  const outside = currentContext();
  return JSON.stringify({ seen, outside: outside === undefined ? null : outside });
}

export const EXPECTED = '{"seen":[{"user":1,"step":10},{"user":2,"step":20}],"outside":null}';
