import type { Command } from "commander";
import type { Io } from "../io.ts";
import { addGenerateMigrations } from "./generate-migrations.ts";
import { addGenerateOperations } from "./generate-operations.ts";
import { addGenerateRoles } from "./generate-roles.ts";

export function addGenerate(program: Command, io: Io): void {
  const generate = program.command("generate").description(
    "print SQL to run by other means, and what operators need",
  ).addHelpText("after", "\nExamples:\n  bemi generate sql --all | psql\n  bemi generate roles");
  for (const add of [addGenerateMigrations, addGenerateRoles, addGenerateOperations]) add(generate, io);
}
