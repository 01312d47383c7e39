/** What stands in for an object's own members, by name. */
export type Own = Readonly<Record<string, unknown>>;

/**
 * The object with some members replaced. A proxy rather than a copy, for classes with private fields; its methods
 * run on the object itself, and those that return the object, as an emitter's `on` does, return the proxy.
 */
export function replacing<T extends object>(target: T, own: Own): T {
  const methods = new WeakMap<object, unknown>();
  const { members, traps } = replaceable<T>(own);
  const proxy: T = new Proxy(target, {
    ...traps,
    get: (_target, name) => {
      if (Object.hasOwn(members, name)) return members[name];
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

/**
 * What stands in for an object's members, and the traps by which the application can put something of its own in their
 * place, as a spy or a logger does. On the object itself it would be called by what it calls.
 */
export function replaceable<T extends object>(
  own: Own,
): { members: Record<PropertyKey, unknown>; traps: ProxyHandler<T> } {
  const members: Record<PropertyKey, unknown> = { ...own };
  const traps: ProxyHandler<T> = {
    set: (target, name, value) => Reflect.set(Object.hasOwn(own, name) ? members : target, name, value),
    defineProperty: (target, name, descriptor) =>
      Reflect.defineProperty(Object.hasOwn(own, name) ? members : target, name, descriptor),
    deleteProperty: (target, name) =>
      Object.hasOwn(own, name)
        ? Reflect.set(members, name, own[name as string])
        : Reflect.deleteProperty(target, name),
    getOwnPropertyDescriptor: (target, name) => {
      const given = Reflect.getOwnPropertyDescriptor(target, name);
      // Of a module's namespace nothing can be told but what it is.
      const isReplaced = Object.hasOwn(own, name) && given?.configurable !== false;
      return isReplaced ? Reflect.getOwnPropertyDescriptor(members, name) : given;
    },
  };
  return { members, traps };
}
