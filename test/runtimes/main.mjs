// For Node, Deno and Bun: prints what isolation() gives.
import { isolation } from "./isolation.js";

console.log(await isolation());
