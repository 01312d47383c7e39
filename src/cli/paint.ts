import { styleText } from "node:util";
import type { Io } from "./io.ts";

/** Colours a text, where the terminal shows colours and nobody asked for none. */
export function paint(io: Io, style: Parameters<typeof styleText>[0], text: string): string {
  return io.isColoured ? styleText(style, text) : text;
}
