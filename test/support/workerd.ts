import { builtinModules, createRequire } from "node:module";
// @ts-expect-error plain JavaScript, as it runs before anything is built
import { installTools } from "../tools/install.mjs";

/** A Worker in Cloudflare's own runtime. */
export interface WorkerdWorker extends AsyncDisposable {
  fetch(path: string, init?: object): Promise<Response>;
  /** Runs its cron; how that ended. */
  scheduled(): Promise<string>;
}

interface MiniflareLike {
  dispatchFetch(url: string, init?: object): Promise<Response>;
  getWorker(): Promise<{ scheduled(options: object): Promise<{ outcome: string }> }>;
  dispose(): Promise<void>;
}

interface Esbuild {
  build(options: object): Promise<{ outputFiles: { text: string }[] }>;
}

/** Bundles a Worker as its tools do, and starts it. */
export async function startWorkerd(
  entry: string,
  bindings: Readonly<Record<string, string>>,
): Promise<WorkerdWorker> {
  (installTools as () => void)();
  const require = createRequire(new URL("../tools/package.json", import.meta.url));
  const { Miniflare } = require("miniflare") as { Miniflare: new (options: object) => MiniflareLike };
  const { outputFiles } = await (require("esbuild") as Esbuild).build({
    entryPoints: [entry],
    bundle: true,
    write: false,
    format: "esm",
    platform: "neutral",
    mainFields: ["workerd", "module", "main"],
    conditions: ["workerd", "worker"],
    external: ["node:*", "cloudflare:*"],
    plugins: [nodeModules],
  });
  const miniflare = new Miniflare({
    modules: true,
    script: outputFiles[0]?.text ?? "",
    compatibilityDate: "2026-04-01",
    compatibilityFlags: ["nodejs_compat"],
    bindings,
  });
  return {
    fetch: (path, init) => miniflare.dispatchFetch(`http://localhost${path}`, init),
    scheduled: async () => (await (await miniflare.getWorker()).scheduled({ cron: "* * * * *" })).outcome,
    [Symbol.asyncDispose]: () => miniflare.dispose(),
  };
}

interface EsbuildPlugins {
  onResolve(
    options: { filter: RegExp },
    fn: (args: { path: string; kind: string }) => { path: string; namespace?: string; external?: boolean },
  ): void;
  onLoad(
    options: { filter: RegExp; namespace: string },
    fn: (args: { path: string }) => { contents: string },
  ): void;
}

/** CommonJS packages call `require("events")`, which a bundle of modules has to import; wrangler does the same. */
const nodeModules = {
  name: "node-modules",
  setup: (build: EsbuildPlugins): void => {
    const names = builtinModules.filter((name) => !name.startsWith("_")).join("|");
    build.onResolve({ filter: new RegExp(`^(node:)?(${names})$`) }, ({ path, kind }) => {
      const name = `node:${path.replace(/^node:/, "")}`;
      return kind === "require-call" ? { path: name, namespace: "required" } : { path: name, external: true };
    });
    build.onLoad({ filter: /./, namespace: "required" }, ({ path }) => ({
      contents: `import found from "${path}"; module.exports = found;`,
    }));
  },
};
