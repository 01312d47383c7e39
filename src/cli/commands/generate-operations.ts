import { type Command, InvalidArgumentError } from "commander";
import type { Io } from "../io.ts";
import { alertRules } from "../operate/alerts.ts";
import { dockerfile } from "../operate/dockerfile.ts";
import { systemdUnit } from "../operate/systemd.ts";
import { address, positiveInteger } from "../options.ts";

/** What an operator puts beside the worker. */
export function addGenerateOperations(generate: Command, io: Io): void {
  generate.command("alerts")
    .description("rules for Prometheus about what bemi worker --listen tells")
    .addHelpText("after", "\nExample:\n  bemi generate alerts > /etc/prometheus/rules/bemi.yml")
    .action(() => io.out(alertRules()));
  generate.command("systemd")
    .description("a unit that runs the worker")
    .option("--command <path>", "the executable", absolutePath, "/usr/local/bin/bemi-poll")
    .option(
      "--environment-file <path>",
      "what says where the database is",
      absolutePath,
      "/etc/bemi/worker.env",
    )
    .option("--listen <[host:]port>", "for probes and metrics", listenAddress, "127.0.0.1:9187")
    .addHelpText("after", "\nExample:\n  bemi generate systemd > /etc/systemd/system/bemi-worker.service")
    .action((options: { command: string; environmentFile: string; listen: string }) =>
      io.out(systemdUnit(options))
    );
  generate.command("dockerfile")
    .description("an image that runs the worker, by the variables of Bemi's own image")
    .option("--package <name>", "what npm installs: name@version, or a tarball", npmPackage, "@bemi/core")
    .option("--port <port>", "for probes and metrics", positiveInteger, 9187)
    .addHelpText("after", "\nExample:\n  bemi generate dockerfile --package @bemi/core@0.1.0 > Dockerfile")
    .action((options: { package: string; port: number }) => io.out(dockerfile(options)));
}

function absolutePath(text: string): string {
  if (/^\/[\w./@+-]+$/.test(text)) return text;
  throw new InvalidArgumentError("Write an absolute path without spaces.");
}

function listenAddress(text: string): string {
  const { host, port } = address(text);
  return `${host.includes(":") ? `[${host}]` : host}:${port}`;
}

function npmPackage(text: string): string {
  if (/^[\w@./^~-]+$/.test(text)) return text;
  throw new InvalidArgumentError("Write a package such as @bemi/core@0.1.0, or the path of a tarball.");
}
