/**
 * Whether this runs on Cloudflare Workers, where sockets are of another kind: postgres.js has a build of its own for it,
 * which can neither pause one nor be given one.
 */
export const isWorkerd: boolean = globalThis.navigator?.userAgent === "Cloudflare-Workers";
