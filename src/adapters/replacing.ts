/** What stands in for an object's own members, by name. */
export type Own = Readonly<Record<string, unknown>>;

/**
 * The object with some members replaced. A proxy rather than a copy, for classes with private fields; its methods
 * run on the object itself, and those that return the object, as an emitter's `on` does, return the proxy.
 */
export function replacing<T extends object>(target: T, own: Own): T {
  const methods = new WeakMap<object, unknown>();
  const proxy: T = new Proxy(target, {
    get: (_target, name) => {
      if (typeof name === "string" && Object.hasOwn(own, name)) return own[name];
      const value = Reflect.get(target, name, target) as unknown;
      if (typeof value !== "function" || name === "constructor" || Object.hasOwn(target, name)) return value;
      let method = methods.get(value);
      if (!method) {
        method = (...args: unknown[]) => {
          const result = Reflect.apply(value, target, args) as unknown;
          return result === target ? proxy : result;
        };
        methods.set(value, method);
      }
      return method;
    },
  });
  return proxy;
}
