import type { Database } from "../../database/port.ts";
import { inSchema } from "../../install/schema.ts";
import type { Image } from "./image.ts";
import { tableId } from "./tables.ts";

/** A name that means another column today than it did for a while. */
interface Rename {
  readonly schema: string;
  readonly table: string;
  readonly name: string;
  /** Texts, as `committedAt` is one. */
  readonly since: string;
  readonly until: string;
  readonly present: string;
}

/** Brings the images of a change under the names that their columns have today. */
export type Renamer = (
  image: Image,
  change: { readonly schema: string; readonly table: string; readonly committedAt: string },
) => Image;

/** Asks which columns of the log are called otherwise today. */
export async function readRenames(db: Database, schema: string): Promise<Renamer> {
  const rows = await db.query<Rename>(inSchema(schema, 'select * from "bemi".column_renames()'));
  if (rows.length === 0) return (image) => image;
  const byTable = new Map<string, Rename[]>();
  for (const rename of rows) byTable.set(tableId(rename), [...byTable.get(tableId(rename)) ?? [], rename]);
  return (image, change) => {
    const renames = byTable.get(tableId(change))
      ?.filter(({ since, until }) => since <= change.committedAt && change.committedAt < until);
    if (!renames || renames.length === 0) return image;
    const present = new Map(renames.map((rename) => [rename.name, rename.present]));
    return new Map([...image].map(([column, value]) => [present.get(column) ?? column, value]));
  };
}
