import type { InstallResult } from "../install/mod.ts";

/** Which version an installation has, and had. */
export function installedText(schema: string, { from, to }: InstallResult): string {
  return from === to
    ? `Schema "${schema}" is up to date (version ${to})\n`
    : `Schema "${schema}": version ${from} -> ${to}\n`;
}
