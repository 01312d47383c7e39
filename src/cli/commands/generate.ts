import type { Command } from "commander";
import type { Io } from "../io.ts";
import { addGenerateMigrations } from "./generate-migrations.ts";
import { addGenerateRoles } from "./generate-roles.ts";

export function addGenerate(program: Command, io: Io): void {
  const generate = program.command("generate").description("print SQL to read, and to run by other means");
  for (const add of [addGenerateMigrations, addGenerateRoles]) add(generate, io);
}
