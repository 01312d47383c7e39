import { BemiError } from "../errors.ts";
import type { WorkerSql } from "./sql.ts";

/** One connection that prepares nothing and asks nothing of its own, so that it works behind a pooler too. */
export async function openConnection(target: string | object): Promise<WorkerSql> {
  const { default: postgres } = await import("postgres").catch((error: unknown) => {
    throw new BemiError("missing_package", "The worker needs the package postgres", {
      hint: "Install it: npm install postgres",
      cause: error,
    });
  });
  const options = {
    max: 1,
    prepare: false,
    fetch_types: false,
    idle_timeout: 0,
    max_lifetime: null,
    connect_timeout: 15,
    onnotice: () => {},
    connection: { application_name: "bemi worker" },
  };
  return (typeof target === "string"
    ? postgres(target, options)
    : postgres({ ...target, ...options })) as unknown as WorkerSql;
}
