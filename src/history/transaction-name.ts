/** What a name of a transaction says: its number, its source, the LSN of its commit. */
export interface TransactionName {
  readonly id?: string;
  readonly source?: string;
  readonly commitLsn?: string;
}

/**
 * Reads how a transaction is named: `8231`, as by a change's `transaction_id`; `1/8231` or, from the WAL, `1/0/16B374D8`, as
 * by the key of a group; `1:0/16B374D8` as on the command line. `undefined` where it is none of them.
 */
export function readTransactionName(text: string): TransactionName | undefined {
  const [, own, id] = /^(?:(-?\d{1,10})\/)?(\d{1,19})$/.exec(text) ?? [];
  if (id !== undefined) return own === undefined ? { id } : { id, source: own };
  const [, source, commitLsn] = /^(-?\d{1,10})[/:]([\da-f]{1,8}\/[\da-f]{1,8})$/i.exec(text) ?? [];
  return source === undefined || commitLsn === undefined ? undefined : { source, commitLsn };
}
