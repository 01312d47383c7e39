import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
// @ts-expect-error plain JavaScript, as it runs before anything is built
import { installTools } from "../tools/install.mjs";

/** How many bytes the built core entry comes to, minified and compressed. */
export async function coreBundleBytes(): Promise<number> {
  (installTools as () => void)();
  const require = createRequire(new URL("../tools/package.json", import.meta.url));
  const { build } = require("esbuild") as {
    build(options: object): Promise<{ outputFiles: { contents: Uint8Array }[] }>;
  };
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL("../../dist/mod.js", import.meta.url))],
    bundle: true,
    minify: true,
    format: "esm",
    write: false,
    external: ["node:async_hooks"],
    outdir: "unused",
  });
  const [bundle] = outputFiles;
  if (!bundle) throw new Error("esbuild wrote nothing");
  return gzipSync(bundle.contents).length;
}
