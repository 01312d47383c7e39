const wrappers: WeakSet<object> = new WeakSet();

/** Wraps a client, unless it is a wrapper already, of whichever adapter. */
export function wrapOnce<C extends object>(client: C, wrap: () => object): C {
  if (wrappers.has(client)) return client;
  const wrapped = wrap();
  wrappers.add(wrapped);
  return wrapped as C;
}
