import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { onEachServer } from "./support/databases.ts";
import { install, track } from "./support/installation.ts";
import { expectIsolated } from "./support/isolation.ts";
import { npmPackages } from "./support/npm-packages.ts";
import { OUTCOME } from "./support/requests.ts";
import { PROCESS_RUNTIMES, runToEnd } from "./support/runtimes.ts";
import { TODOS } from "./support/todos.ts";

const packages = {
  "6": npmPackages("mikro-orm", ["core", "knex", "postgresql"].map((name) => `@mikro-orm/${name}@6.6.16`)),
  "7": npmPackages("mikro-orm", ["core", "sql", "postgresql"].map((name) => `@mikro-orm/${name}@7.2.1`)),
};

/** Version 7 needs Node 22.17. */
const NODES = { "6": PROCESS_RUNTIMES[0], "7": PROCESS_RUNTIMES[1] };

onEachServer("MikroORM over pg", (open) => {
  test.for(["6", "7"] as const)(
    "of version %s: every write carries its own request's context",
    async (major, { skip }) => {
      const command = NODES[major]?.command();
      const found = packages[major];
      if (!found || !command) return skip();
      await using database = await open();
      await install(database.db);
      await database.port.execute(TODOS);
      await track(database.db, "todos");
      const output = runToEnd({
        command: [...command, "--import", "tsx"],
        args: ["mikro-orm/app.ts", major, found.folder, database.url],
        cwd: fileURLToPath(new URL(".", import.meta.url)),
      });
      expect(output.trim()).toBe(OUTCOME);
      await expectIsolated(database);
    },
  );
});
