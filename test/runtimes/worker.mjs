// For workerd: answers with what isolation() gives.
import { isolation } from "./isolation.js";

export default { fetch: async () => new Response(await isolation()) };
