/**
 * Installing Bemi in a database, and choosing the tables to track.
 *
 * @module
 */
export { baseline } from "./baseline.ts";
export type { BaselineOptions } from "./baseline.ts";
export { doctor } from "./doctor.ts";
export type { Finding } from "./doctor.ts";
export { importChanges } from "./import-changes.ts";
export type { ImportResult } from "./import-changes.ts";
export { install, SCHEMA_VERSION } from "./install.ts";
export type { InstallResult, InstallSqlOptions, SchemaOptions } from "./install.ts";
export { maintain } from "./maintain.ts";
export type { MaintenanceStep } from "./maintain.ts";
export { migration } from "./migration.ts";
export type { MigrationKind, MigrationOptions } from "./migration.ts";
export { reconcile } from "./reconcile.ts";
export type { ReconcileOptions, Reconciliation } from "./reconcile.ts";
export { rolesSql } from "./roles.ts";
export { seal } from "./seal.ts";
export type { SealOptions } from "./seal.ts";
export { status } from "./status.ts";
export type { Status, StatusOptions, TrackedTable } from "./status.ts";
export type { CheckpointStatus, GapStatus, LogStatus } from "./log-status.ts";
export { timeToLoss } from "./slot-status.ts";
export type { SlotStatus, WorkerConnections } from "./slot-status.ts";
export { planTracking, track, trackAll, untrack } from "./track.ts";
export type { PlannedTable, TrackOptions } from "./track.ts";
export { uninstall } from "./uninstall.ts";
export type {
  Database,
  DatabaseLike,
  PgClientLike,
  PgliteLike,
  PgPoolLike,
  PostgresLike,
  QueryOptions,
} from "../database/port.ts";
