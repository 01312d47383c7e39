import type { PostgresLike } from "../database/port.ts";
import { connect } from "../database/connect.ts";
import { inSchema } from "../install/schema.ts";
import { parseLsn } from "./decode.ts";
import { pause } from "./retry.ts";
import { slotState } from "./slot-state.ts";
import type { Work } from "./work.ts";

/** How often a worker that stands by looks whether the slot is free, in milliseconds. */
const LOOK_INTERVAL = 500;

/**
 * Waits while somebody else reads the slot, whose backend is theirs to end. Touches nothing that the other needs, so
 * that any number may wait. A run that ends is done as well when the other has brought the log up to its goal.
 */
export async function standBy({ link, signal, goal, log }: Work): Promise<"done" | "free"> {
  let isSaid = false;
  while (!signal.aborted) {
    link.turn?.();
    const { activePid } = await slotState(link.source);
    if (activePid === undefined) return "free";
    if (!isSaid) log({ kind: "standby", slot: link.source.slot });
    isSaid = true;
    if (goal !== undefined && await checkpoint(link) >= goal) return "done";
    await pause(LOOK_INTERVAL, signal);
  }
  return "done";
}

async function checkpoint({ destination, destinationSchema, origin }: Work["link"]): Promise<bigint> {
  const [row] = await connect(destination as unknown as PostgresLike).query<{ end_lsn: string }>(
    inSchema(
      destinationSchema,
      'select end_lsn::text from "bemi".checkpoints where source_id = $1::text::integer',
    ),
    [String(origin.sourceId)],
  );
  return parseLsn(row?.end_lsn ?? "0/0");
}

/** Waits, some seconds at most, until the server has noticed that this worker streams the slot no more. */
export async function waitUntilFree({ source }: Work["link"], signal: AbortSignal): Promise<void> {
  for (let i = 0; i < 50; i++) {
    if ((await slotState(source)).activePid === undefined) return;
    await pause(20 * (1 + i / 5), signal);
  }
}
