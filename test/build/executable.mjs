// tsc writes files that nobody may execute; `npx bemi` in a checkout needs to.
import { chmodSync, readFileSync } from "node:fs";

const root = new URL("../../", import.meta.url);
const { bin } = JSON.parse(readFileSync(new URL("package.json", root), "utf8"));
for (const file of Object.values(bin)) chmodSync(new URL(file, root), 0o755);
