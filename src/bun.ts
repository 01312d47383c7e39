/**
 * For Bun: middleware for Bun.serve, and Bun's own SQL client.
 *
 * @module
 */
export { bemi } from "./middleware/bun.ts";
export type { BunHandler, BunRoutes, RequestOf } from "./middleware/bun.ts";
export { withBemi } from "./adapters/bun-sql.ts";
export type { BunSqlClient, WrapOptions } from "./adapters/bun-sql.ts";
