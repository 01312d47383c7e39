/**
 * Installing Bemi in a database, and choosing the tables to track.
 *
 * @module
 */
export { install, SCHEMA_VERSION } from "./install.ts";
export type { InstallResult, SchemaOptions } from "./install.ts";
export { maintain } from "./maintain.ts";
export type { MaintenanceStep } from "./maintain.ts";
export { rolesSql } from "./roles.ts";
export { status } from "./status.ts";
export type { Status, TrackedTable } from "./status.ts";
export { track, trackableTables, trackAll, untrack } from "./track.ts";
export type { TrackOptions } from "./track.ts";
export { uninstall } from "./uninstall.ts";
export type {
  Database,
  DatabaseLike,
  PgClientLike,
  PgliteLike,
  PgPoolLike,
  PostgresLike,
} from "../database/port.ts";
