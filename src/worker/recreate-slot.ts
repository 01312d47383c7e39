import { makeSlot } from "./make-slot.ts";
import type { Source } from "./source.ts";
import { findSlot } from "./slot-state.ts";

/**
 * Makes the slot anew in place of one that is lost. Of several workers one does so: the others find it usable. Kept for
 * failover where the old one was.
 */
export async function recreateSlot(source: Source, isReset: boolean): Promise<boolean> {
  const { db, slot } = source;
  const [old] = await db.query<{ failover: boolean }>(
    `select coalesce((to_jsonb(s) ->> 'failover')::boolean, false) as failover
    from pg_replication_slots s where s.slot_name = $1::text`,
    [slot],
  );
  return await makeSlot(
    db,
    { slot, failover: old?.failover ?? false },
    async (tx) => isReset || (await findSlot({ ...source, db: tx })).kind !== "usable",
  );
}
