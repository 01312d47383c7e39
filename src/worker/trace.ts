import { codeOf } from "./retry.ts";

/** Part of an OpenTelemetry `Span`. */
export interface SpanLike {
  /** Adds attributes. */
  setAttributes(attributes: Readonly<Record<string, string | number | boolean>>): unknown;
  /** Says how it ended. */
  setStatus(status: { code: number }): unknown;
  /** Ends it. */
  end(): void;
}

/** Part of an OpenTelemetry `Tracer`, so that nothing has to be installed by those who do not trace. */
export interface TracerLike {
  /** Starts a span. */
  startSpan(name: string): SpanLike;
  /** Runs a function in a span. */
  startActiveSpan(name: string, options: object, fn: (span: SpanLike) => Promise<unknown>): unknown;
}

const ERROR = 2;

/**
 * Runs `fn` within a span. An error is told by its code alone (`error.type`), for a message of PostgreSQL's may quote
 * values.
 */
export async function traced<R>(
  tracer: TracerLike | undefined,
  name: string,
  fn: (span: SpanLike | undefined) => Promise<R>,
): Promise<R> {
  if (!tracer) return await fn(undefined);
  return await tracer.startActiveSpan(name, {}, async (span) => {
    try {
      return await fn(span);
    } catch (error) {
      span.setAttributes({ "error.type": codeOf(error) || "_OTHER" });
      span.setStatus({ code: ERROR });
      throw error;
    } finally {
      span.end();
    }
  }) as R;
}
