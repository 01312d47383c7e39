import type { TracerLike } from "../worker/mod.ts";

/**
 * The tracer of the process, where an SDK was set up before (`node --import ./tracing.js …`): without one its spans
 * go nowhere, and without the package there is none.
 */
export async function openTelemetryTracer(): Promise<TracerLike | undefined> {
  try {
    const { trace } = await import("@opentelemetry/api");
    return trace.getTracer("@bemi/core");
  } catch {
    return undefined;
  }
}
