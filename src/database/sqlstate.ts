/** The SQLSTATEs that Bemi acts on (PostgreSQL documentation, appendix A). */
export const SQLSTATE = {
  adminShutdown: "57P01",
  activeSqlTransaction: "25001",
  configurationLimitExceeded: "53400",
  deadlockDetected: "40P01",
  duplicateSchema: "42P06",
  featureNotSupported: "0A000",
  inFailedSqlTransaction: "25P02",
  insufficientPrivilege: "42501",
  invalidParameterValue: "22023",
  invalidTransactionTermination: "2D000",
  lockNotAvailable: "55P03",
  objectInUse: "55006",
  queryCanceled: "57014",
  readOnlyTransaction: "25006",
  objectNotInPrerequisiteState: "55000",
  undefinedColumn: "42703",
  undefinedFunction: "42883",
  undefinedObject: "42704",
  undefinedTable: "42P01",
  uniqueViolation: "23505",
  wrongObjectType: "42809",
  /** Bemi's own: what was asked for is not known. */
  historyUnknown: "BE001",
  /** Bemi's own: there is no such change. */
  changeMissing: "BE002",
} as const;

/** The SQLSTATE that a driver's error carries, whichever driver. */
export function sqlstateOf(error: unknown): string | undefined {
  if (typeof error !== "object" || error === null) return undefined;
  // Bun's own client keeps the SQLSTATE in `errno`, and a code of its own beside it.
  const { code, errno } = error as { code?: unknown; errno?: unknown };
  for (const value of [code, errno]) {
    if (typeof value === "string" && /^[0-9A-Z]{5}$/.test(value)) return value;
  }
  return undefined;
}
