import type { PGlite } from "@electric-sql/pglite";
import { captureTests } from "./capture.ts";
import { clientTests } from "./clients.ts";
import { contextTests } from "./contexts.ts";
import { middlewareTests } from "./middleware.ts";
import { pgliteTests } from "./pglite.ts";
import { streamTests } from "./stream.ts";
import { pollTests } from "./poll.ts";

/** What the shared suite needs of the runtime that it is in. */
export interface Runtime {
  /** An empty database on a real server. */
  readonly url: string;
  /** The schema to install into. */
  readonly schema: string;
  /** Answers requests, as this runtime does it; `ask` makes one. */
  serve(answer: (request: Request) => Response | Promise<Response>): Promise<Serving>;
  /** Absent where it cannot run. */
  readonly pglite?: () => Promise<PGlite>;
  /** Whether it lets a connection stay open, for a worker that streams. */
  readonly streams: boolean;
}

export interface Serving extends AsyncDisposable {
  ask(request: { readonly user: number; readonly path: string }): Promise<string>;
}

export type AddTest = (name: string, fn: () => Promise<void>) => void;

/** The suite that every runtime passes, on the package as it is packed. Its tests build on those before them. */
export function addTests(test: AddTest, runtime: Runtime): void {
  contextTests(test);
  captureTests(test, runtime);
  clientTests(test, runtime);
  middlewareTests(test, runtime);
  if (runtime.pglite) pgliteTests(test, runtime.pglite);
  pollTests(test, runtime);
  if (runtime.streams) streamTests(test, runtime);
}
