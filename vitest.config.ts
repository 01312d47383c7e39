import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/support/global-setup.ts"],
    setupFiles: ["test/support/property-seed.ts"],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // PGlite takes a few hundred megabytes each, and the servers share the machine.
    maxWorkers: 2,
  },
});
